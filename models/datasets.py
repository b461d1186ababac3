"""Labelled examples: read, check, hash and split them.

A data file is JSON lines, UTF-8, one object a line with two strings, `text` and `label` (or other columns that are
named); other fields are ignored. `models.readers` reads further formats.
"""

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from models.errors import BadDataset

MAX_LINE_BYTES = 1 << 20  # a longer line is a wrong file, not a text: refuse it before it fills memory
MAX_TEXT_CHARS = MAX_LINE_BYTES
MAX_LABEL_CHARS = 100
MAX_ROWS = 5_000_000  # of one source, and
MAX_SOURCE_CHARS = 1 << 31  # its texts together: what comes after would not fit into memory


class Example(NamedTuple):
    """One labelled text; both are non-empty, but the label of one read without it, or that only a teacher scores."""

    text: str
    label: str


class Columns(NamedTuple):
    """Which fields of a row hold the text and its label; without a label column every label is empty."""

    text: str = "text"
    label: str | None = "label"


TEXT_AND_LABEL = Columns()


class Located(NamedTuple):
    """An example, and where it stands: `file:line`."""

    where: str
    example: Example


class Rejected(NamedTuple):
    """Where something stands that is no example, and why it is none."""

    where: str
    reason: str


class Checked(NamedTuple):
    """What `check` kept, and what it left out."""

    examples: list[Example]
    duplicates: int  # repeats of an earlier text with the same label
    contradictions: list[str]  # texts that carry more than one label: nothing can be learned from them


def read_jsonl(path: Path, columns: Columns = TEXT_AND_LABEL) -> list[Example]:
    """Read a data file, in file order.

    Raises BadDataset naming file, line and field for anything that is not a labelled example.
    """
    return accepted(scan_jsonl(path, columns), str(path))


def accepted(found: Iterable[Located | Rejected], source: str) -> list[Example]:
    """All examples of a source. Raises BadDataset for the first thing that is none, and when there are no examples."""
    examples = []
    for one in found:
        if isinstance(one, Rejected):
            raise BadDataset(f"{one.where}: {one.reason}")
        examples.append(one.example)
    if not examples:
        raise BadDataset(f'{source}: no examples; expected a line such as {{"text": "...", "label": "..."}}')
    return examples


def scan_jsonl(path: Path, columns: Columns = TEXT_AND_LABEL) -> Iterator[Located | Rejected]:
    """Every line of a file of JSON lines that is not blank, as an example or as what is wrong with it.

    Raises BadDataset when the file cannot be read or holds more than MAX_ROWS or MAX_SOURCE_CHARS.
    """
    try:
        with path.open("rb") as file:
            yield from bounded((_parsed(number, line, path, columns) for number, line in _full_lines(file)), str(path))
    except OSError as error:
        raise BadDataset(f"{path}: cannot be read: {error.strerror}") from error


def bounded(found: Iterable[Located | Rejected], source: str) -> Iterator[Located | Rejected]:
    """The same rows. Raises BadDataset once there are more than MAX_ROWS, or more than MAX_SOURCE_CHARS of text."""
    chars = 0
    for number, one in enumerate(found, 1):
        if isinstance(one, Located):
            chars += len(one.example.text)
        if number > MAX_ROWS or chars > MAX_SOURCE_CHARS:
            most = f"{MAX_ROWS:,} rows or {MAX_SOURCE_CHARS:,} characters"
            raise BadDataset(f"{source}: more than {most}: use a part of it")
        yield one


def byte_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines, from 1; None in place of one longer than MAX_LINE_BYTES, of which no more is ever held."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) <= MAX_LINE_BYTES:
            yield number, line
            continue
        while not line.endswith(b"\n") and (line := file.readline(MAX_LINE_BYTES)):
            pass
        yield number, None


def _full_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    return ((number, line) for number, line in byte_lines(file) if line is None or line.strip())


def _parsed(number: int, line: bytes | None, path: Path, columns: Columns) -> Located | Rejected:
    where = f"{path}:{number}"
    if line is None:
        return Rejected(where, f"the line is longer than {MAX_LINE_BYTES} bytes")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        return Rejected(where, f"not JSON in UTF-8: {error}")
    if not isinstance(row, dict):
        fields = " and ".join(f"`{name}`" for name in columns if name)
        return Rejected(where, f"expected an object with {fields}, found {type(row).__name__}")
    return example_of(row, columns, where)


def example_of(row: Mapping[str, object], columns: Columns, where: str) -> Located | Rejected:
    """The example that a row of any format holds, or what is wrong with it. A whole number may be a label."""
    label = row.get(columns.label) if columns.label else ""
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    text = row.get(columns.text)
    for name, value in ((columns.text, text), (columns.label, label)):
        if name and (not isinstance(value, str) or not value.strip()):
            shown = "missing" if name not in row else f"{value!r:.60}"
            return Rejected(where, f"field `{name}` must be a non-empty string, found: {shown}")
    text, label = str(text), str(label)
    if len(text) > MAX_TEXT_CHARS:
        return Rejected(where, f"field `{columns.text}` is longer than {MAX_TEXT_CHARS} characters")
    if len(label) > MAX_LABEL_CHARS:
        return Rejected(where, f"field `{columns.label}` is longer than {MAX_LABEL_CHARS} characters")
    return Located(where, Example(text, label))


def check(examples: Sequence[Example]) -> Checked:
    """Keep the first of each text; leave out repeats and texts with contradictory labels (case and spacing ignored).

    Raises BadDataset when fewer than two labels remain.
    """
    labels_of: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        labels_of[normalised(example.text)].add(example.label)
    kept: dict[str, Example] = {}
    contradictions: list[str] = []
    repeats = 0
    for example in examples:
        text = normalised(example.text)
        if len(labels_of[text]) > 1:
            contradictions.append(example.text)
        elif text in kept:
            repeats += 1
        else:
            kept[text] = example
    labels = {example.label for example in kept.values()}
    if len(labels) < 2:
        raise BadDataset(f"a classifier needs at least two labels, found: {', '.join(sorted(labels)) or 'none'}")
    return Checked(list(kept.values()), repeats, contradictions)


def normalised(text: str) -> str:
    """What two texts that count as the same one share: case and spacing left aside."""
    return " ".join(text.casefold().split())


def data_hash(examples: Iterable[Example]) -> str:
    """SHA-256 over texts and labels in order; independent of file layout, key order and escapes."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.text, example.label]).encode() + b"\n")
    return digest.hexdigest()


def labels_of(examples: Iterable[Example]) -> tuple[str, ...]:
    """The label set, sorted: the order of a release's score columns. No label is none of them."""
    return tuple(sorted({example.label for example in examples} - {""}))


def split(examples: Sequence[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Split into (rest, held out), stratified by label, both in the original order.

    Of a label with two or more examples at least one lands on either side; a label's only example stays in the rest.
    The same examples, fraction and seed give the same split. `fraction` is in (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, found {fraction}")
    held = held_out_rows([example.label for example in examples], fraction, seed)
    rest = [example for row, example in enumerate(examples) if row not in held]
    return rest, [examples[row] for row in sorted(held)]


def held_out_rows(labels: Sequence[str], fraction: float, seed: int) -> set[int]:
    """Which rows `split` holds out; never one without a label (an empty string)."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        if label:
            rows_of[label].append(row)
    chooser = random.Random(seed)  # noqa: S311 - a reproducible shuffle, nothing secret
    held: set[int] = set()
    for label in sorted(rows_of):
        rows = rows_of[label]
        count = min(max(1, round(len(rows) * fraction)), len(rows) - 1)
        held.update(chooser.sample(rows, count))
    return held


def imbalance(examples: Iterable[Example]) -> float:
    """Examples of the commonest label for one of the rarest."""
    counts = Counter(example.label for example in examples if example.label)
    return max(counts.values()) / min(counts.values())
