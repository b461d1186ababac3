"""Publishing: acknowledged means it is there, in order; not acknowledged is said aloud."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from streams.embedded import EmbeddedBroker
from streams.exits import BrokerUnavailable
from streams.publishing import MAX_MESSAGE_BYTES, DeliveryFailed, Outgoing, Publisher
from tests.streams.wire import free_port, read_all


@asynccontextmanager
async def publisher(bootstrap: str, timeout_s: float = 30) -> AsyncIterator[Publisher]:
    one = Publisher({"bootstrap.servers": bootstrap, "log_level": 0}, timeout_s)
    try:
        yield one
    finally:
        await asyncio.to_thread(one.close, 5.0)


async def test_what_is_acknowledged_is_there(embedded: EmbeddedBroker, unique: Callable[[str], str]) -> None:
    topic = unique("out")
    async with publisher(embedded.bootstrap) as one:
        records = [Outgoing(topic, "a", {"n": 1}), Outgoing(topic, "b", b"raw \xff"), Outgoing(topic, "c", None)]
        await asyncio.wait_for(await one.send(records), 20)
        found = {
            message.key(): message.value() for message in await asyncio.to_thread(read_all, embedded.bootstrap, topic)
        }
    assert found == {b"a": b'{"n":1}', b"b": b"raw \xff", b"c": None}


async def test_nothing_to_send_is_done_at_once(embedded: EmbeddedBroker) -> None:
    async with publisher(embedded.bootstrap) as one:
        assert (await one.send([])).done()


async def test_records_of_a_key_keep_their_order_over_many_calls(
    embedded: EmbeddedBroker, unique: Callable[[str], str]
) -> None:
    topic, keys = unique("out"), [f"key {number}" for number in range(7)]
    async with publisher(embedded.bootstrap) as one:
        futures = []
        for call in range(30):
            futures.append(await one.send([Outgoing(topic, key, {"n": call * 7 + n}) for n, key in enumerate(keys)]))
        await asyncio.wait_for(asyncio.gather(*futures), 20)
        found = await asyncio.to_thread(read_all, embedded.bootstrap, topic)
    by_key: dict[bytes, list[bytes]] = {}
    for message in found:
        by_key.setdefault(message.key() or b"", []).append(message.value() or b"")
    assert by_key == {key.encode(): [b'{"n":%d}' % (call * 7 + n) for call in range(30)] for n, key in enumerate(keys)}
    assert len({message.partition() for message in found}) > 1


async def test_a_record_goes_to_the_partition_it_names(embedded: EmbeddedBroker, unique: Callable[[str], str]) -> None:
    topic = unique("state")
    async with publisher(embedded.bootstrap) as one:
        await asyncio.wait_for(await one.send([Outgoing(topic, "meta", b"x", part) for part in (3, 1)]), 20)
        found = await asyncio.to_thread(read_all, embedded.bootstrap, topic)
    assert [message.partition() for message in found] == [1, 3]


async def test_a_broker_that_is_away_is_reported_after_the_delivery_timeout() -> None:
    async with publisher(f"127.0.0.1:{free_port()}", timeout_s=1.0) as one:
        future = await one.send([Outgoing("alerts", "k", {}), Outgoing("predictions", "k", {})])
        with pytest.raises(BrokerUnavailable, match=r"output to topic '(alerts|predictions)' was not acknowledged"):
            await asyncio.wait_for(future, 20)


async def test_a_record_that_is_too_large_names_its_topic(
    embedded: EmbeddedBroker, unique: Callable[[str], str]
) -> None:
    topic = unique("dead-letters")
    async with publisher(embedded.bootstrap) as one:
        with pytest.raises(DeliveryFailed, match=topic):
            await one.send([Outgoing(topic, "k", b"x" * (MAX_MESSAGE_BYTES + 1))])
        await asyncio.wait_for(await one.send([Outgoing(topic, "k", b"x")]), 20)  # the next one is none the worse


async def test_one_record_that_fails_fails_the_call(embedded: EmbeddedBroker, unique: Callable[[str], str]) -> None:
    """A partition that does not exist stands for anything the broker refuses."""
    topic = unique("out")
    async with publisher(embedded.bootstrap, timeout_s=5) as one:
        await asyncio.wait_for(await one.send([Outgoing(topic, "k", b"x")]), 20)
        with pytest.raises((DeliveryFailed, BrokerUnavailable), match=topic):
            await asyncio.wait_for(await one.send([Outgoing(topic, "k", b"1", 0), Outgoing(topic, "k", b"2", 99)]), 20)


async def test_a_cancelled_wait_does_not_break_the_reports(
    embedded: EmbeddedBroker, unique: Callable[[str], str]
) -> None:
    topic = unique("out")
    async with publisher(embedded.bootstrap) as one:
        (await one.send([Outgoing(topic, "k", b"1")])).cancel()
        await asyncio.wait_for(await one.send([Outgoing(topic, "k", b"2")]), 20)


async def test_close_delivers_what_is_queued(embedded: EmbeddedBroker, unique: Callable[[str], str]) -> None:
    topic = unique("out")
    one = Publisher({"bootstrap.servers": embedded.bootstrap}, 30)
    await one.send([Outgoing(topic, str(number), b"x") for number in range(500)])
    assert await asyncio.to_thread(one.close, 20.0) == 0
    assert len(await asyncio.to_thread(read_all, embedded.bootstrap, topic)) == 500


async def test_close_says_what_is_left() -> None:
    one = Publisher({"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": 0}, 60)
    future = await one.send([Outgoing("out", str(number), b"x") for number in range(3)])
    assert await asyncio.to_thread(one.close, 0.2) == 3
    assert not future.done()
