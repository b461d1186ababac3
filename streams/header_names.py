"""Header names that are not UTF-8, which aiokafka cannot read: one such record would hold up its partition for ever.

Brokers take any bytes as the name of a header. aiokafka decodes it while it iterates over a batch, and the error comes
again at every fetch. Here the batch is then read once more by aiokafka's own slower reader, with these bytes escaped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy

log = logging.getLogger(__name__)


def read_any_header_name() -> None:
    """From now on aiokafka's consumers read records with any header names."""
    fetcher.MemoryRecords = Records


class Records:
    """The batches of a fetched partition; stands in for aiokafka's `MemoryRecords`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._records = MemoryRecords(data)
        self._given = 0
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> Any:
        """The next batch; None after the last."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        self._given += 1
        return _Batch(batch, self._data, self._given - 1)


class _Batch:
    """A batch that knows where to find its bytes, should its headers be unreadable."""

    def __init__(self, batch: Any, data: bytes, number: int) -> None:
        self._batch = batch
        self._data = data
        self._number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for record in self._batch:
                yield record
                read += 1
        except UnicodeDecodeError:
            again = _EscapingBatch(_bytes_of(self._data, self._number))
            log.warning("a record at offset %d or after has a header whose name is not UTF-8", again.base_offset)
            yield from islice(again, read, None)


def _bytes_of(data: bytes, number: int) -> Any:
    records = _MemoryRecordsPy(data)
    for _ in range(number):
        records._cache_next()
    return records._next_slice


class _EscapingBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Escaping(self._buffer)


class _Escaping(bytearray):
    """Bytes whose parts can be decoded whatever they are."""

    def __getitem__(self, where: Any) -> Any:
        found = super().__getitem__(where)
        return _Escaping(found) if isinstance(where, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
