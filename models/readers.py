"""Labelled examples from JSON lines, CSV, Parquet, or a data set of the Hugging Face hub: one call for all.

The name says what it is: `.csv`, `.tsv`, `.parquet`, or `hub:NAME[@REVISION][:CONFIG][#SPLIT]` (split `train` when none
is named); everything else is JSON lines. No code of a data set is ever run.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from models.datasets import (
    MAX_LINE_BYTES,
    MAX_ROWS,
    MAX_TEXT_CHARS,
    TEXT_AND_LABEL,
    Columns,
    Example,
    Located,
    Rejected,
    accepted,
    bounded,
    byte_lines,
    example_of,
    scan_jsonl,
)
from models.errors import DATA_EXTRA, BadDataset, MissingExtra

HUB = "hub:"
HUB_NAME = re.compile(
    r"hub:(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>[\w./-]+))?(?::(?P<config>[\w.-]+))?(?:#(?P<split>[\w.-]+))?"
)
DELIMITERS = ",;\t|"
BATCH_ROWS = 1024  # of a Parquet file, held at a time


def read_examples(source: str | Path, columns: Columns = TEXT_AND_LABEL) -> list[Example]:
    """All examples of a file or hub data set, in order.

    Raises BadDataset naming file, line and field for the first row that is no example; MissingExtra when Parquet or the
    hub is asked for and the library for it is not installed.
    """
    return accepted(scan(source, columns), str(source))


def scan(source: str | Path, columns: Columns = TEXT_AND_LABEL) -> Iterator[Located | Rejected]:
    """Every row of a file or hub data set, as an example or as what is wrong with it.

    Raises BadDataset when the source as a whole cannot be read: not there, another format, no such column, too large.
    """
    name = str(source)
    if name.startswith(HUB):
        return bounded(_scan_hub(name, columns), name)
    suffix = Path(name).suffix.lower()
    readers: Mapping[str, Callable[[Path, Columns], Iterator[Located | Rejected]]] = {
        ".csv": _scan_csv,
        ".tsv": _scan_csv,
        ".parquet": _scan_parquet,
    }
    if suffix not in readers:
        return scan_jsonl(Path(name), columns)
    return bounded(readers[suffix](Path(name), columns), name)


def _scan_csv(path: Path, columns: Columns) -> Iterator[Located | Rejected]:
    csv.field_size_limit(MAX_TEXT_CHARS)
    started = 1  # the line a row begins on: a quoted text may hold line breaks

    try:
        with path.open("rb") as file:
            lines = _decoded(file, path)
            header = next(lines, "")
            delimiter, names = _header(header, path, columns)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            for values in reader:
                where, started = f"{path}:{started + 1}", reader.line_num + 1
                if not values:
                    continue
                if len(values) != len(names):
                    counts = f"{len(values)} fields, and the header names {len(names)}"
                    yield Rejected(where, f"{counts} (are quotes missing?)")
                else:
                    yield example_of(dict(zip(names, values, strict=True)), columns, where)
    except csv.Error as error:
        raise BadDataset(f"{path}:{started + 1}: not CSV: {error}") from error
    except OSError as error:
        raise BadDataset(f"{path}: cannot be read: {error.strerror}") from error


def _decoded(file: Any, path: Path) -> Iterator[str]:
    for number, line in byte_lines(file):
        if line is None:
            raise BadDataset(f"{path}:{number}: the line is longer than {MAX_LINE_BYTES} bytes")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise BadDataset(f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start + 1})") from error


def _header(line: str, path: Path, columns: Columns) -> tuple[str, list[str]]:
    """The delimiter by which the header holds the text column, and all column names."""
    for delimiter in DELIMITERS:
        names = next(csv.reader([line], delimiter=delimiter), [])
        if columns.text in names:
            _require_columns(names, columns, f"{path}:1")
            return delimiter, names
    _require_columns(next(csv.reader([line]), []), columns, f"{path}:1")
    raise AssertionError("a header without the text column was taken")


def _require_columns(there: list[str], columns: Columns, where: str) -> None:
    for name in columns:
        if name and name not in there:
            shown = ", ".join(map(repr, there[:30])) or "none"
            raise BadDataset(f"{where}: no column {name!r}; there are: {shown:.400} (choose another by its name)")


def _scan_parquet(path: Path, columns: Columns) -> Iterator[Located | Rejected]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(f"{path}: reading Parquet needs pyarrow: {DATA_EXTRA}") from error
    try:
        with path.open("rb") as opened, pyarrow.parquet.ParquetFile(opened) as file:
            _require_columns(file.schema_arrow.names, columns, str(path))
            if file.metadata.num_rows > MAX_ROWS:
                raise BadDataset(f"{path}: {file.metadata.num_rows:,} rows, of {MAX_ROWS:,} allowed: use a part of it")
            names = _class_names(file.schema_arrow.metadata or {}, columns)
            number = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=[name for name in columns if name]):
                for row in batch.to_pylist():
                    number += 1
                    yield example_of(_named(row, columns, names), columns, f"{path}: row {number}")
    except pyarrow.ArrowException as error:
        raise BadDataset(f"{path}: not Parquet that can be read: {error}") from error
    except OSError as error:
        raise BadDataset(f"{path}: cannot be read: {error.strerror or error}") from error


def _class_names(metadata: Mapping[bytes, bytes], columns: Columns) -> list[str]:
    """The names of numbered labels, where the file carries the hub's note of them."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][columns.label]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _named(row: dict[str, Any], columns: Columns, names: list[str]) -> dict[str, Any]:
    if columns.label and names:
        number = row[columns.label]
        named = isinstance(number, int) and 0 <= number < len(names)
        return row | {columns.label: names[number] if named else None}  # -1 is the hub's way to say: none
    return row


def _scan_hub(source: str, columns: Columns) -> Iterator[Located | Rejected]:
    if (parts := HUB_NAME.fullmatch(source)) is None:
        raise BadDataset(f"{source}: expected hub:NAME[@REVISION][:CONFIG][#SPLIT], such as hub:mteb/banking77#train")
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise MissingExtra(f"{source}: reading from the hub needs the datasets package: {DATA_EXTRA}") from error
    try:
        rows = datasets.load_dataset(
            parts["name"], parts["config"], revision=parts["revision"], split=parts["split"] or "train"
        )
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise BadDataset(f"{source}: cannot be read from the hub: {error}") from error
    _require_columns(rows.column_names, columns, source)
    names = getattr(rows.features[columns.label], "names", None) if columns.label else None
    for number, row in enumerate(rows.select_columns([name for name in columns if name]), 1):
        yield example_of(_named(row, columns, names or []), columns, f"{source}: row {number}")
