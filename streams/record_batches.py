"""Every batch a broker holds can be read to its end: no partition stops at one, whatever somebody has sent.

Stands in for aiokafka's `MemoryRecords`, which expands a compressed batch without a bound, and raises at bytes that it
cannot read, at every fetch anew. Brokers look into batches, too, but not at everything: they ignore what follows behind
a gzip stream, the attributes of a record may be any byte, and so may be its offset where nothing is compressed. What
differs here:

* a batch expands to so much at most, and so, give or take one batch, does all that is read of one fetch;
* of a batch that expands further, or cannot be read, an `Unreadable` stands at every offset that was not read;
* offsets that are not those of the batch make it unreadable: committed, they would pass over the records of others;
* header names that are not UTF-8 are escaped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBase, DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from streams.expanding import Corrupt, Expander, TooLarge
from streams.header_names import EscapingBatch
from streams.intake import Unreadable

log = logging.getLogger(__name__)

_LENGTH: Final = slice(8, DefaultRecordBase.AFTER_LEN_OFFSET)  # of what follows it
_COUNT: Final = slice(DefaultRecordBase.HEADER_STRUCT.size - 4, DefaultRecordBase.HEADER_STRUCT.size)
_MAGIC, _OLD_ATTRIBUTES, _NEW = 16, 17, 2  # where they are, and the format since Kafka 0.11
MIB: Final = 1 << 20
_MAX_WHY_CHARS = 400
_FETCH_SHARE = 4  # a fetch ends behind the batch with which it has expanded to this part of what one batch may
_KEPT = "nothing of it is kept here: the record is in its topic until that expires"


def read_any_batch(limit_mib: int) -> None:
    """From now on aiokafka's consumers read any batch; one may expand to so many MiB."""
    expander = Expander(limit_mib * MIB)
    fetcher.MemoryRecords = lambda data: Records(data, expander)


class Records:
    """The batches of a fetched partition. What is left when enough was expanded is fetched again."""

    def __init__(self, data: bytes, expander: Expander) -> None:
        self._data = memoryview(data)
        self._records = MemoryRecords(data)
        self._begins = 0
        self._enough = expander.limit_bytes // _FETCH_SHARE
        self.expander = expander
        self.expanded_bytes = 0
        self.size_in_bytes = self._records.size_in_bytes

    def has_next(self) -> bool:
        """Whether another batch is there to be read now."""
        return self.expanded_bytes < self._enough and bool(self._records.has_next())

    def next_batch(self) -> Any:
        """The next batch; None after the last."""
        batch = self._records.next_batch()
        if batch is None:
            return None
        begins = self._begins
        follows = int.from_bytes(self._data[begins:][_LENGTH], "big")
        self._begins += DefaultRecordBase.AFTER_LEN_OFFSET + follows
        return _Batch(batch, self, self._data[begins : self._begins])


@dataclass(frozen=True, slots=True)
class _StandIn:
    """Where a record cannot be read."""

    offset: int
    timestamp: int
    timestamp_type: int
    value: Unreadable
    key: None = None
    checksum: None = None
    headers: tuple[()] = ()


class _Batch:
    """A batch of any kind, read with care."""

    def __init__(self, batch: Any, fetched: Records, data: memoryview) -> None:
        self._batch = batch
        self._fetched = fetched
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        return self._read() if self._data[_MAGIC] >= _NEW else self._read_old()

    def _read(self) -> Iterator[Any]:
        """Each record, and once one cannot be read, something in the place of each that is left."""
        due, last, read = self._batch.base_offset, self._batch.next_offset - 1, 0
        compacted = int.from_bytes(self._data[_COUNT], "big") <= last - due  # only then may offsets be left out
        try:
            plain = self._plain()
            for reader in (DefaultRecordBatch, EscapingBatch):
                try:
                    for record in islice(reader(plain), read, None):
                        if (offset := record.offset) != due and not (compacted and due < offset <= last):
                            raise Corrupt(f"a record says its offset is {offset}, and {due} to {last} are left")
                        yield record
                        due, read = offset + 1, read + 1
                    return
                except UnicodeDecodeError:
                    log.warning("a record at offset %d or after has a header whose name is not UTF-8", due)
            raise Corrupt("header names cannot be read")
        except MemoryError:
            raise
        except Exception as error:  # whatever a library raises at bytes like these
            why = self._why(error)
        if due <= last:
            log.error("offsets %d to %d cannot be read, and become dead letters: %s", due, last, why.message)
        stamp, kind = self._batch.max_timestamp, self._batch.timestamp_type
        for offset in range(due, last + 1):
            yield _StandIn(offset, stamp, kind, why)

    def _plain(self) -> memoryview | bytes:
        """The batch with its records expanded; what cannot be is counted as much as is tried at most."""
        fetched, expander = self._fetched, self._fetched.expander
        before = fetched.expanded_bytes
        fetched.expanded_bytes = before + expander.limit_bytes
        plain = expander.plain(self._data)
        fetched.expanded_bytes = before + len(plain)
        return plain

    def _why(self, error: Exception) -> Unreadable:
        if isinstance(error, TooLarge):
            limit = f"intake.max_expanded_batch_mib = {self._fetched.expander.limit_bytes / MIB:g}"
            what = f"the compressed batch it came in ({len(self._data):,} bytes) expands beyond {limit}"
            return Unreadable("BatchTooLarge", f"{what}; {_KEPT}")
        what = f"the batch it came in cannot be read: {type(error).__name__}: {error}"
        return Unreadable("BatchUnreadable", f"{what[:_MAX_WHY_CHARS]}; {_KEPT}")

    def _read_old(self) -> Iterator[Any]:
        """A batch in a format from before Kafka 0.11. How many offsets a compressed one has is said inside alone."""
        if not self._data[_OLD_ATTRIBUTES] & DefaultRecordBase.CODEC_MASK:
            yield from self._batch
            return
        why = Unreadable("BatchUnreadable", f"it is the last of a compressed batch as before Kafka 0.11; {_KEPT}")
        offset = self._batch.next_offset - 1
        log.error("up to offset %d: %s", offset, why.message)
        yield _StandIn(offset, -1, 0, why)
