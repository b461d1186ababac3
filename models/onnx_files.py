"""What an ONNX file says of its tensors, read from its bytes alone: names, places, and other files they point into.

A tensor may lie in another file, named by a path. Whoever loads the graph follows that path, so one that leads out of
the release would be read by the worker. The file is walked as the protocol buffers it is made of (the message and field
numbers are those of onnx.proto): a worker has no onnx package, and no weight is copied.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from models.errors import IntegrityError

# Which fields of a message hold messages that hold tensors, by number.
_HOLD: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
_NAME, _RAW_DATA, _EXTERNAL_DATA = 8, 9, 13  # of a tensor
_KEY, _VALUE = 1, 2  # of an entry of its external data
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # how a field is written
_VARINT_BYTES = 10
_LAST_FIELD = (1 << 29) - 1

Buffer = bytes | mmap.mmap


class TensorPlace(NamedTuple):
    """A tensor: where its raw bytes stand in the file (None if it has none), and the files it says it lies in."""

    name: str
    raw: range | None
    locations: tuple[str, ...]


class _Field(NamedTuple):
    number: int
    start: int  # of its content
    end: int
    holds_bytes: bool


def tensor_places(content: Buffer) -> Iterator[TensorPlace]:
    """Every tensor of an ONNX model, wherever it stands in it. Raises ValueError for what is no protocol buffer."""
    left = [("model", 0, len(content))]
    while left:
        kind, start, end = left.pop()
        if kind == "tensor":
            yield _tensor(content, start, end)
            continue
        hold = _HOLD[kind]
        for field in _fields(content, start, end):
            if field.holds_bytes and field.number in hold:
                left.append((hold[field.number], field.start, field.end))


def refuse_foreign_tensors(path: Path, allowed: str | None) -> None:
    """Raise IntegrityError when a tensor of an ONNX file lies in another file than `allowed` (None: in any other)."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for tensor in tensor_places(content):
                for location in tensor.locations:
                    if location != allowed:
                        may = f"in {allowed} alone" if allowed else "in no other file"
                        raise IntegrityError(
                            f"{path}: the tensor {tensor.name[:80]!r} lies in the file {location[:200]!r}, and those of"
                            f" this graph may lie {may}: it is not used; take the release from where it was trained"
                        )
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise IntegrityError(f"{path}: no ONNX graph: {error}") from error


def _tensor(content: Buffer, start: int, end: int) -> TensorPlace:
    name, raw, locations = "", None, list[str]()
    for field in _fields(content, start, end):
        if not field.holds_bytes:
            continue
        if field.number == _NAME:
            name = _text(content, field)
        elif field.number == _RAW_DATA:
            raw = range(field.start, field.end)
        elif field.number == _EXTERNAL_DATA:
            locations += _locations(content, field)
    return TensorPlace(name, raw, tuple(locations))


def _locations(content: Buffer, entry: _Field) -> list[str]:
    """The values of an entry that names a file. Readers differ in which of several they take, so all of them count."""
    fields = [field for field in _fields(content, entry.start, entry.end) if field.holds_bytes]
    keys = [_text(content, field) for field in fields if field.number == _KEY]
    return [_text(content, field) for field in fields if field.number == _VALUE] if "location" in keys else []


def _text(content: Buffer, field: _Field) -> str:
    return content[field.start : field.end].decode("utf-8", "backslashreplace")


def _fields(content: Buffer, start: int, end: int) -> Iterator[_Field]:
    at = start
    while at < end:
        tag, at = _varint(content, at, end)
        number, written = tag >> 3, tag & 7
        if not 0 < number <= _LAST_FIELD:  # readers cut a larger number down, and so see another field than this does
            raise ValueError(f"a field of no possible number at byte {at}")
        length = 0
        if written == _VARINT:
            _, at = _varint(content, at, end)
        elif written == _BYTES:
            length, at = _varint(content, at, end)
        elif written in (_FIXED32, _FIXED64):
            length = 4 if written == _FIXED32 else 8
        else:
            raise ValueError(f"a field of kind {written} at byte {at}")
        if length > end - at:
            raise ValueError(f"a field at byte {at} is longer than what holds it")
        yield _Field(number, at, at + length, written == _BYTES)
        at += length


def _varint(content: Buffer, at: int, end: int) -> tuple[int, int]:
    """The number that begins at a byte, and the byte after it."""
    value = 0
    for place in range(min(_VARINT_BYTES, end - at)):
        byte = content[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError(f"a number at byte {at} does not end")
