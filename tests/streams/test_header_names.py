"""Header names that are not UTF-8: any client may send them, and no partition may stop at them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import aiokafka
import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.memory_records import MemoryRecords

from streams.embedded import EmbeddedBroker
from streams.header_names import Records, read_any_header_name
from tests.streams.wire_raw import Raw, batch_of, send_raw

NONE, GZIP, LZ4 = 0, 1, 3
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


def test_stock_aiokafka_stops_at_such_a_record() -> None:
    """When this fails, aiokafka reads these names, and `streams/header_names.py` can go."""
    with pytest.raises(UnicodeDecodeError):
        batches(MemoryRecords(batch_of(BAD)))


@pytest.mark.parametrize("codec", [NONE, GZIP, LZ4])
def test_the_record_and_those_around_it_are_read(codec: int) -> None:
    data = batch_of(GOOD, codec) + batch_of(BAD, codec) + batch_of(GOOD, codec)
    found = batches(Records(data))
    good = batches(MemoryRecords(batch_of(GOOD, codec)))
    assert found[:3] == good and found[-3:] == good
    assert [value for _, _, _, value, _ in found[3:10]] == [value for _, value, _ in BAD]
    assert found[6][4] == (("\\xff\\xfe", b"v"), ("naïve", b"w"))


def test_what_stock_aiokafka_can_read_is_read_by_it_and_the_same() -> None:
    data = batch_of(GOOD, LZ4) * 3
    assert batches(Records(data)) == batches(MemoryRecords(data))
    empty = Records(b"")
    assert (empty.has_next(), empty.next_batch(), empty.size_in_bytes()) == (False, None, 0)


async def test_a_consumer_goes_on_behind_it(embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)  # put back afterwards
    read_any_header_name()
    await send_raw(embedded.bootstrap, "news", 0, BAD)
    await send_raw(embedded.bootstrap, "news", 0, GOOD)
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=embedded.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([aiokafka.TopicPartition("news", 0)])
        found: list[Any] = []
        async with asyncio.timeout(20):
            while len(found) < 10:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += records
    finally:
        await consumer.stop()
    assert [one.offset for one in found] == list(range(10))
    assert found[3].headers == (("\\xff\\xfe", b"v"), ("naïve", b"w"))
