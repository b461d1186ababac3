"""Labelled examples: read, check, hash and split them.

A data file is JSON lines, UTF-8, one object a line with two strings, `text` and `label`; other fields are ignored.
"""

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from models.errors import BadDataset

MAX_LINE_BYTES = 1 << 20  # a longer line is a wrong file, not a text: refuse it before it fills memory
MAX_LABEL_CHARS = 100


class Example(NamedTuple):
    """One labelled text; both strings are non-empty, but the label of one that only a teacher's scores speak of."""

    text: str
    label: str


class Checked(NamedTuple):
    """What `check` kept, and what it left out."""

    examples: list[Example]
    duplicates: int  # repeats of an earlier text with the same label
    contradictions: list[str]  # texts that carry more than one label: nothing can be learned from them


def read_jsonl(path: Path) -> list[Example]:
    """Read a data file, in file order.

    Raises BadDataset naming file, line and field for anything that is not a labelled example.
    """
    try:
        with path.open("rb") as file:
            examples = [_parse(line, f"{path}:{number}") for number, line in _lines(file, path) if line.strip()]
    except OSError as error:
        raise BadDataset(f"{path}: cannot be read: {error.strerror}") from error
    if not examples:
        raise BadDataset(f'{path}: no examples; expected a line such as {{"text": "...", "label": "..."}}')
    return examples


def _lines(file: BinaryIO, path: Path) -> Iterable[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise BadDataset(f"{path}:{number}: the line is longer than {MAX_LINE_BYTES} bytes")
        yield number, line


def _parse(line: bytes, where: str) -> Example:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise BadDataset(f"{where}: not JSON in UTF-8: {error}") from error
    if not isinstance(row, dict):
        raise BadDataset(f"{where}: expected an object with `text` and `label`, found {type(row).__name__}")
    for field in Example._fields:
        value = row.get(field)
        if not isinstance(value, str) or not value.strip():
            shown = "missing" if field not in row else f"{value!r:.60}"
            raise BadDataset(f"{where}: field `{field}` must be a non-empty string, found: {shown}")
    if len(row["label"]) > MAX_LABEL_CHARS:
        raise BadDataset(f"{where}: field `label` is longer than {MAX_LABEL_CHARS} characters")
    return Example(row["text"], row["label"])


def check(examples: Sequence[Example]) -> Checked:
    """Keep the first of each text; leave out repeats and texts with contradictory labels (case and spacing ignored).

    Raises BadDataset when fewer than two labels remain.
    """
    labels_of: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        labels_of[_normalised(example.text)].add(example.label)
    kept: dict[str, Example] = {}
    contradictions: list[str] = []
    repeats = 0
    for example in examples:
        text = _normalised(example.text)
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


def _normalised(text: str) -> str:
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
