"""Header names that are not UTF-8, which aiokafka cannot read: one such record would hold up its partition for ever.

Brokers take any bytes as the name of a header. aiokafka decodes it while it iterates over a batch, and the error comes
again at every fetch. `record_batches` then reads the batch once more by aiokafka's own slower reader, with these bytes
escaped.
"""

from __future__ import annotations

from typing import Any

from aiokafka.record.default_records import _DefaultRecordBatchPy


class EscapingBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """Reads a batch whatever its header names are; those that are not UTF-8 are escaped, as in `\\xff`.

    Args:
        plain: the batch, its records not compressed. One copy of it is made.
    """

    def __init__(self, plain: bytes | memoryview) -> None:
        super().__init__(plain[: self.HEADER_STRUCT.size])
        self._buffer = _Escaping(plain)


class _Escaping(bytearray):
    """Bytes whose parts can be decoded whatever they are."""

    def __getitem__(self, where: Any) -> Any:
        found = super().__getitem__(where)
        return _Escaping(found) if isinstance(where, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
