"""Batches as any client may send them: no partition may stop at one, nothing may be lost in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import aiokafka
import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from streams.embedded import EmbeddedBroker
from streams.expanding import Expander
from streams.intake import Unreadable
from streams.record_batches import Records, read_any_batch
from tests.streams.wire_raw import (
    CODECS,
    GZIP,
    LZ4,
    NONE,
    TIME_MS,
    ZSTD,
    Raw,
    batch_of,
    bomb,
    compressed,
    record_of,
    sealed,
    send_batch,
    send_raw,
)  # fmt: skip

MIB = 1 << 20
GOOD: list[Raw] = [(b"k", b"a" * 500, [(b"trace", b"1"), (b"empty", None)]), (None, b"b", []), (b"k", None, [])]
BAD: list[Raw] = [*GOOD, (b"k", b"c", [(b"\xff\xfe", b"v"), ("naïve".encode(), b"w")]), *GOOD]


def contents(records: Iterable[Any]) -> list[Any]:
    return [(one.offset, one.timestamp, one.key, one.value, tuple(one.headers)) for one in records]


def batches(records: Any) -> list[Any]:
    found = []
    while records.has_next():
        batch = records.next_batch()
        assert batch.validate_crc() and not batch.is_control_batch
        found += contents(batch)
    return found


def read(data: bytes, limit_bytes: int = MIB) -> list[Any]:
    return batches(Records(data, Expander(limit_bytes)))


def at(base: int, batch: bytes) -> bytes:
    """The batch where the broker puts it."""
    return base.to_bytes(8, "big") + batch[8:]


def fetched(*parts: bytes) -> bytes:
    """Batches one behind the other, as a partition is fetched."""
    data, base = b"", 0
    for part in parts:
        data += at(base, part)
        base += int.from_bytes(part[23:27], "big") + 1
    return data


def unreadable(found: Iterable[Any]) -> dict[int, str]:
    """Offset and class of error of what could not be read."""
    return {offset: value.error for offset, _, _, value, _ in found if isinstance(value, Unreadable)}


# ---- header names


def test_stock_aiokafka_stops_at_a_header_name_that_is_not_utf8() -> None:
    """When this fails, aiokafka reads these names, and `streams/header_names.py` can go."""
    with pytest.raises(UnicodeDecodeError):
        batches(MemoryRecords(batch_of(BAD)))


@pytest.mark.parametrize("codec", [NONE, *CODECS])
def test_the_record_and_those_around_it_are_read(codec: int) -> None:
    data = batch_of(GOOD, codec) + batch_of(BAD, codec) + batch_of(GOOD, codec)
    found = read(data)
    good = batches(MemoryRecords(batch_of(GOOD, codec)))
    assert found[:3] == good and found[-3:] == good
    assert [value for _, _, _, value, _ in found[3:10]] == [value for _, value, _ in BAD]
    assert found[6][4] == (("\\xff\\xfe", b"v"), ("naïve", b"w"))


@pytest.mark.parametrize("codec", [NONE, *CODECS])
def test_what_stock_aiokafka_can_read_is_read_the_same(codec: int) -> None:
    data = fetched(*[batch_of(GOOD * 20, codec)] * 3)
    assert read(data) == batches(MemoryRecords(data))
    empty = Records(b"", Expander(MIB))
    assert (empty.has_next(), empty.next_batch(), empty.size_in_bytes()) == (False, None, 0)
    cut = Records(data[:-1], Expander(MIB))
    assert len(batches(cut)) == 120, "what has come in part only is fetched again"


async def consumed(embedded: EmbeddedBroker, count: int) -> list[Any]:
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=embedded.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([aiokafka.TopicPartition("news", 0)])
        found: list[Any] = []
        async with asyncio.timeout(20):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += records
    finally:
        await consumer.stop()
    return found


async def test_a_consumer_goes_on_behind_all_of_them(embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)  # put back afterwards
    read_any_batch(8)
    await send_raw(embedded.bootstrap, "news", 0, BAD)
    await send_batch(embedded.bootstrap, "news", 0, bomb(ZSTD, 5, 3 * MIB))
    await send_batch(embedded.bootstrap, "news", 0, sealed(b"broken", LZ4, 2))
    await send_raw(embedded.bootstrap, "news", 0, GOOD)
    found = await consumed(embedded, 17)
    assert [one.offset for one in found] == list(range(17))
    assert found[3].headers == (("\\xff\\xfe", b"v"), ("naïve", b"w"))
    assert unreadable(contents(found)) == dict.fromkeys(range(7, 12), "BatchTooLarge") | dict.fromkeys(
        (12, 13), "BatchUnreadable"
    )


# ---- batches that expand


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_is_unreadable_at_each_of_its_offsets_and_its_neighbours_are_read(
    codec: int, caplog: pytest.LogCaptureFixture
) -> None:
    data, good = fetched(batch_of(GOOD), bomb(codec, 20, MIB // 10), batch_of(GOOD)), batch_of(GOOD)
    records = Records(data, Expander(MIB))
    before, bad = contents(records.next_batch()), contents(records.next_batch())
    assert before == batches(MemoryRecords(good))
    assert unreadable(bad) == dict.fromkeys(range(3, 23), "BatchTooLarge")
    assert [(stamp, key, headers) for _, stamp, key, _, headers in bad] == [(TIME_MS, None, ())] * 20
    assert "max_expanded_batch_mib = 1;" in bad[0][3].message and "in its topic" in bad[0][3].message
    assert "offsets 3 to 22" in caplog.text
    assert not records.has_next(), "a bomb costs as much as a fetch may; the rest is for the next"
    assert contents(records.next_batch()) == batches(MemoryRecords(at(23, good)))


def test_one_fetch_expands_to_the_bound_and_a_quarter_at_most() -> None:
    """A thousand batches, each just within the bound, would fit into one fetch."""
    large = batch_of([(None, bytes(MIB * 9 // 10), [])], ZSTD)
    small = batch_of([(None, bytes(MIB // 10), [])], ZSTD)
    for parts, first in (((large, small), 1), ((small, small, large, small), 3), ((small,) * 5, 3)):
        assert len(read(fetched(*parts))) == first


# ---- batches that cannot be read


def test_stock_aiokafka_stops_at_bytes_behind_a_gzip_stream() -> None:
    """When this and the next pins fail, aiokafka reads what brokers take, and `_Batch` may be simpler."""
    with pytest.raises(OSError, match="Not a gzipped file"):
        batches(MemoryRecords(trailing()))


def trailing() -> bytes:
    """Brokers read as many records as there should be, and do not mind what follows the stream."""
    return sealed(compressed([record_of(b"a", 0), record_of(b"b", 1)], GZIP) + b"more", GZIP, 2)


def attributes(value: int, count: int = 3) -> bytes:
    """A batch whose second record has attributes; to a broker a byte that means nothing, to aiokafka a varint."""
    records = [bytearray(record_of(b"%d" % number, number, b"kk")) for number in range(count)]
    records[1][1] = value
    return sealed(b"".join(records), NONE, count)


def test_stock_aiokafka_misreads_the_attributes_of_a_record() -> None:
    assert len(batches(MemoryRecords(attributes(0x7F)))) == 3
    with pytest.raises(CorruptRecordException):
        batches(MemoryRecords(attributes(0x80)))


def far_offset() -> bytes:
    """Brokers look at the offsets inside a compressed batch alone."""
    return sealed(record_of(b"a", 0) + record_of(b"b", 1_000_000), NONE, 2)


def test_stock_aiokafka_believes_any_offset() -> None:
    """As it would be committed, the records of others would never be read."""
    assert [one[0] for one in batches(MemoryRecords(far_offset()))] == [0, 1_000_000]


@pytest.mark.parametrize(
    ("batch", "read_before", "why"),
    [
        (trailing(), 0, "incorrect header check"),
        (sealed(b"", ZSTD, 2), 0, "incomplete frame"),
        (sealed(b"x", 6, 2), 0, "no codec has the number 6"),
        (attributes(0x80), 1, "header key size"),
        (sealed(record_of(b"a", 0) + record_of(b"c", 2) + record_of(b"b", 1), NONE, 3), 1, "offset is 2"),
        (far_offset(), 1, "offset is 1000000"),
        (sealed(record_of(b"a", 0) + record_of(b"b", 0), NONE, 2), 1, "offset is 0"),
        (sealed(compressed([record_of(b"a", 0)], LZ4), LZ4, 2), 1, "Can't read 1 bytes"),
    ],
)
def test_what_cannot_be_read_is_unreadable_from_there_on(batch: bytes, read_before: int, why: str) -> None:
    found = read(batch)
    assert [one[0] for one in found] == list(range(len(found)))
    assert unreadable(found) == dict.fromkeys(range(read_before, len(found)), "BatchUnreadable")
    assert len(found) == int.from_bytes(batch[23:27], "big") + 1 and why in found[-1][3].message


def test_offsets_that_compaction_took_are_no_fault() -> None:
    kept = [record_of(b"b", 1), record_of(b"d", 3)]
    for batch in (sealed(b"".join(kept), NONE, 2, 6), sealed(compressed(kept, ZSTD), ZSTD, 2, 6)):
        found = read(batch)
        assert [one[0] for one in found] == [1, 3] and found == batches(MemoryRecords(batch))


def test_a_record_beyond_those_promised_has_no_offset_and_is_passed_over() -> None:
    found = read(sealed(record_of(b"a", 0) + record_of(b"b", 1), NONE, 1))
    assert [one[0] for one in found] == [0] and not unreadable(found)


# ---- formats from before Kafka 0.11


def old(codec: int) -> bytes:
    builder = LegacyRecordBatchBuilder(1, codec, 1 << 20)
    for number in range(3):
        builder.append(number, TIME_MS, None, b"a" * 100)
    return at(2 if codec else 0, bytes(builder.build()))  # a broker puts the last of a compressed batch there


def test_old_formats_are_read_and_refused_where_they_are_compressed() -> None:
    assert read(old(NONE)) == batches(MemoryRecords(old(NONE)))
    assert unreadable(read(old(GZIP))) == {2: "BatchUnreadable"}
