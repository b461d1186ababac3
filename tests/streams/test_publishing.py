"""Publishing: acknowledged means it is there, in order; not acknowledged is said aloud."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, Message, Producer

from streams.embedded import EmbeddedBroker
from streams.events import Output, OutputName
from streams.exits import BrokerUnavailable
from streams.publishing import MAX_MESSAGE_BYTES, DeliveryFailed, Publisher, Report, undelivered
from tests.streams.wire import free_port, read_all

TOPICS: dict[OutputName, str] = {"predictions": "the-predictions", "alerts": "the-alerts", "surge_state": "the-state"}


def make(bootstrap: str, timeout_s: float) -> Publisher:
    return Publisher({"bootstrap.servers": bootstrap, "log_level": 0}, TOPICS, timeout_s)


def raw(key: str, value: bytes | None = b"x", partition: int = -1) -> Output:
    return Output("surge_state", key, value, partition)


@asynccontextmanager
async def publisher(bootstrap: str, timeout_s: float = 30) -> AsyncIterator[Publisher]:
    one = make(bootstrap, timeout_s)
    try:
        yield one
    finally:
        await asyncio.to_thread(one.close, 5.0)


async def records(broker: EmbeddedBroker, name: OutputName) -> list[Message]:
    return await asyncio.to_thread(read_all, broker.bootstrap, TOPICS[name])


async def test_what_is_acknowledged_is_there(embedded: EmbeddedBroker) -> None:
    async with publisher(embedded.bootstrap) as one:
        outputs = [Output("surge_state", "a", {"n": 1}), raw("b", b"raw \xff"), raw("c", None)]
        await asyncio.wait_for(await one.send(outputs), 20)
        found = {message.key(): message.value() for message in await records(embedded, "surge_state")}
    assert found == {b"a": b'{"n":1}', b"b": b"raw \xff", b"c": None}


async def test_each_output_goes_to_its_own_topic(embedded: EmbeddedBroker) -> None:
    async with publisher(embedded.bootstrap) as one:
        await asyncio.wait_for(await one.send([Output(name, "key", {"is": name}) for name in TOPICS]), 20)
        for name in TOPICS:
            assert [message.value() for message in await records(embedded, name)] == [b'{"is":"%s"}' % name.encode()]


async def test_nothing_to_send_is_done_at_once(embedded: EmbeddedBroker) -> None:
    async with publisher(embedded.bootstrap) as one:
        assert (await one.send([])).done()


async def test_records_of_a_key_keep_their_order_over_many_calls(embedded: EmbeddedBroker) -> None:
    keys = [f"key {number}" for number in range(7)]
    async with publisher(embedded.bootstrap) as one:
        futures = []
        for call in range(30):
            outputs = [Output("predictions", key, {"n": call * 7 + n}) for n, key in enumerate(keys)]
            futures.append(await one.send(outputs))
        await asyncio.wait_for(asyncio.gather(*futures), 20)
        found = await records(embedded, "predictions")
    by_key: dict[bytes, list[bytes]] = {}
    for message in found:
        by_key.setdefault(message.key() or b"", []).append(message.value() or b"")
    assert by_key == {key.encode(): [b'{"n":%d}' % (call * 7 + n) for call in range(30)] for n, key in enumerate(keys)}
    assert len({message.partition() for message in found}) > 1


async def test_a_record_goes_to_the_partition_it_names(embedded: EmbeddedBroker) -> None:
    async with publisher(embedded.bootstrap) as one:
        await asyncio.wait_for(await one.send([raw("meta", b"x", part) for part in (3, 1)]), 20)
        found = await records(embedded, "surge_state")
    assert [message.partition() for message in found] == [1, 3]


async def test_a_broker_that_is_away_is_reported_after_the_delivery_timeout() -> None:
    async with publisher(f"127.0.0.1:{free_port()}", timeout_s=1.0) as one:
        future = await one.send([Output("alerts", "k", {}), Output("predictions", "k", {})])
        with pytest.raises(BrokerUnavailable, match=r"output to topic 'the-(alerts|predictions)' was not acknowledged"):
            await asyncio.wait_for(future, 20)


async def test_a_record_that_is_too_large_names_its_topic(embedded: EmbeddedBroker) -> None:
    async with publisher(embedded.bootstrap) as one:
        with pytest.raises(DeliveryFailed, match="the-state"):
            await one.send([raw("k", b"x" * (MAX_MESSAGE_BYTES + 1))])
        await asyncio.wait_for(await one.send([raw("k")]), 20)  # the next one is none the worse


async def test_one_record_that_fails_fails_the_call(embedded: EmbeddedBroker) -> None:
    """A partition that does not exist stands for anything the broker refuses."""
    async with publisher(embedded.bootstrap, timeout_s=5) as one:
        await asyncio.wait_for(await one.send([raw("k")]), 20)
        with pytest.raises((DeliveryFailed, BrokerUnavailable), match="the-state"):
            await asyncio.wait_for(await one.send([raw("k", b"1", 0), raw("k", b"2", 99)]), 20)


async def test_a_cancelled_wait_does_not_break_the_reports(embedded: EmbeddedBroker) -> None:
    async with publisher(embedded.bootstrap) as one:
        (await one.send([raw("k", b"1")])).cancel()
        await asyncio.wait_for(await one.send([raw("k", b"2")]), 20)


async def test_close_delivers_what_is_queued(embedded: EmbeddedBroker) -> None:
    one = make(embedded.bootstrap, 30)
    await one.send([raw(str(number)) for number in range(500)])
    assert await asyncio.to_thread(one.close, 20.0) == 0
    assert len(await records(embedded, "surge_state")) == 500


async def test_close_says_what_is_left() -> None:
    one = make(f"127.0.0.1:{free_port()}", 60)
    future = await one.send([raw(str(number)) for number in range(3)])
    assert await asyncio.to_thread(one.close, 0.2) == 3
    assert not future.done()


class Placeless:
    """What librdkafka reports of a record that the broker says it has had already: all but its offset."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def offset(self) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


class Forgetful:
    """A producer that loses the first so many records, and whose reports say of them that they are there, nowhere."""

    def __init__(self, producer: Any, lost: int) -> None:
        self._producer = producer
        self._lost = lost

    def produce(self, topic: str, value: bytes, key: bytes, partition: int, report: Report) -> None:
        if self._lost:
            self._lost -= 1
            self._producer.produce(
                "elsewhere", value, key, partition, lambda error, message: report(error, self._told(topic, message))
            )
        else:
            self._producer.produce(topic, value, key, partition, report)

    def _told(self, topic: str, message: Message) -> Any:
        told = Placeless(message)
        told.__dict__["topic"] = lambda: topic
        return told

    def __len__(self) -> int:
        return len(self._producer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


async def test_an_acknowledgement_without_an_offset_is_none_and_the_record_is_sent_again(
    embedded: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with publisher(embedded.bootstrap) as one:
        monkeypatch.setattr(one, "_producer", Forgetful(one._producer, lost=2))
        await asyncio.wait_for(await one.send([raw(key, key.encode(), 2) for key in "abc"]), 20)
        found = {(message.key(), message.value()) for message in await records(embedded, "surge_state")}
    assert found == {(key, key) for key in (b"a", b"b", b"c")}
    assert caplog.messages.count("topic the-state: a record was acknowledged without an offset; it is sent again") == 2


async def test_only_an_offset_tells_that_a_record_is_stored(embedded: EmbeddedBroker) -> None:
    reports: list[tuple[KafkaError | None, Message]] = []
    producer = Producer({"bootstrap.servers": embedded.bootstrap, "log_level": 0})
    producer.produce("any", b"x", on_delivery=lambda error, message: reports.append((error, message)))
    assert producer.flush(20) == 0
    [(error, message)] = reports
    assert undelivered(error, message) is None
    nowhere = undelivered(None, cast(Message, Placeless(message)))
    assert nowhere is not None
    assert "without an offset" in nowhere.str()
    refused = KafkaError(KafkaError.NOT_ENOUGH_REPLICAS)
    assert undelivered(refused, message) is refused
