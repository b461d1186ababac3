"""The Parquet files of a version of the dataset: their columns, written and read. Needs the `data` extra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import DATA_EXTRA, IntegrityError, MissingExtra

Table = list[dict[str, Any]]

_PLACE = {"partition": "int32", "offset": "int64"}
FILES: Mapping[str, Mapping[str, str]] = {  # the type of each column, as Arrow calls it
    "opinions.parquet": {
        "key": "string",
        "text": "string",
        "label": "string",
        "annotator": "string",
        "labelled_at_s": "double",
        "event_time_s": "double",
        "source": "string",
        "note": "string",
        "predicted": "string",
        "score": "double",
        "release": "string",
        "conversation": "string",
        "at_random": "bool",
        **_PLACE,
    },
    "withdrawals.parquet": {"key": "string", "annotator": "string", "labelled_at_s": "double", **_PLACE},
    "waiting.parquet": {
        "since_s": "double",
        "timestamp_ms": "int64",
        "key": "binary",
        "value": "binary",
        "headers": "headers",
        **_PLACE,
    },
}


def write_table(path: Path, columns: Mapping[str, str], rows: Table) -> None:
    """Write rows as Parquet. Raises MissingExtra without the `data` extra."""
    pa, pq = _arrow()
    headers = pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))
    schema = pa.schema(
        [(name, headers if kind == "headers" else pa.type_for_alias(kind)) for name, kind in columns.items()]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), path, compression="zstd")


def read_table(path: Path) -> Table:
    """Read all rows of a file. Raises IntegrityError when it is no Parquet, MissingExtra without the `data` extra."""
    pa, pq = _arrow()
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            rows: Table = file.read(use_threads=False).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"{path}: cannot be read: {error}") from error
    return rows


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(f"the dataset of the learning loop needs pyarrow: {DATA_EXTRA}") from error
    return pyarrow, pyarrow.parquet
