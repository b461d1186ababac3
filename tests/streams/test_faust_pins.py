"""Pins on the bugs of stock Faust that this project works around: stock shows each, the worker's consumer does not.

When a pin on stock fails, an upgrade has changed what a workaround relies on: its message says what to think over.
`test_consuming.py` pins names and arguments of what is overridden; `test_header_names.py` pins aiokafka's reader.

Left out, as the mechanism is not used at all: Faust's producer and its buffer (a future instead of a delivery, a flush
that does not, threads), its transactions, its tables, windows and their recovery, its stores, its Prometheus sensor,
its web server, `noack_take`. `test_nothing_of_faust_is_used_that_is_not_pinned` holds that.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import faust
import pytest
from faust.agents.agent import Agent
from faust.cli.worker import worker as faust_worker_command
from faust.events import Event
from faust.exceptions import ValueDecodeError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams import app as wiring
from streams.consuming import Slice, SliceConsumer
from streams.settings import load_settings
from tests.streams.records import FakeRecord
from tests.streams.test_consuming import ignore, make_app

ZERO = TP("news", 0)
RECONSIDER = "stock Faust has changed: read again, and perhaps remove, "


class Scripted(driver.Consumer):
    """A stock consumer whose broker is a list of what it fetches next, and of the commits that came."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.fetches: list[list[int]] = []
        self.sent: list[dict[TP, int]] = []
        self.accepts_commits = True
        super().__init__(*args, **kwargs)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        if not self.fetches:
            self._stopped.set()
            return {}
        return {ZERO: [raw(offset) for offset in self.fetches.pop(0)]}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        self.sent.append(dict(offsets))
        return self.accepts_commits

    async def seek_to_committed(self) -> Mapping[TP, int]:
        return {}

    def assignment(self) -> set[TP]:
        return {ZERO}

    async def earliest_offsets(self, *tps: TP) -> Mapping[TP, int]:
        return dict.fromkeys(tps, 0)

    async def _seek(self, partition: TP, offset: int) -> None:
        pass

    def highwater(self, tp: TP) -> int:
        return 0


C = TypeVar("C", bound="Scripted")


class ScriptedSlices(Scripted, SliceConsumer):
    """The worker's consumer with the same broker; every record is a slice of its own."""

    max_slice_events = 1


def raw(offset: int) -> Any:
    class Record(FakeRecord):
        timestamp_type, checksum, serialized_key_size, serialized_value_size = 0, None, 0, 0

    return Record(b"{}", offset)


@asynccontextmanager
async def consumer_of(kind: type[C]) -> AsyncIterator[C]:
    app = make_app("never-made")
    app.transport = driver.Transport(app.conf.broker_consumer, app)
    app.topics.acking_topics.add("news")
    consumer = kind(app.transport, callback=ignore, on_partitions_revoked=ignore, on_partitions_assigned=ignore)
    app.consumer = consumer
    app.flow_control.resume()
    await consumer.on_partitions_assigned({ZERO}, 0)
    try:
        yield consumer
    finally:
        consumer._thread.thread_loop.close()


def stock_message(offset: int) -> ConsumerMessage:
    message = ConsumerMessage("news", 0, offset, 0.0, 0, None, None, b"{}", None, 0, 2, ZERO, generation_id=0)
    message.incref()
    return message


async def slices(consumer: ScriptedSlices, offsets: Iterable[int]) -> list[Slice]:
    consumer.fetches = [list(offsets)]
    found = [one async for _, one in consumer.getmany(1.0)]
    for one in found:
        one.incref()
        consumer.track_message(one)
    return found


# ---- what is committed


async def test_stock_commits_past_a_message_in_flight() -> None:
    async with consumer_of(Scripted) as consumer:
        consumer._committed_offset[ZERO] = 5  # 5 itself is in flight
        for offset in (6, 7):
            consumer.ack(stock_message(offset))
        assert consumer._new_offset(ZERO) == 8, RECONSIDER + "the watermark of SliceConsumer"


async def test_stock_commits_past_a_message_in_flight_when_nothing_is_committed_yet() -> None:
    async with consumer_of(Scripted) as consumer:
        for offset in (4, 5):  # 3 is in flight
            consumer.ack(stock_message(offset))
        assert consumer._new_offset(ZERO) == 6, RECONSIDER + "the watermark of SliceConsumer"


@pytest.mark.parametrize("committed", [None, 5])
async def test_slices_are_never_committed_past_one_in_flight(committed: int | None) -> None:
    async with consumer_of(ScriptedSlices) as consumer:
        consumer._committed_offset[ZERO] = committed
        first, *others = await slices(consumer, range(5, 8))
        for one in others:
            one.finish(consumer)
        assert consumer._new_offset(ZERO) is None
        first.finish(consumer)
        assert consumer._new_offset(ZERO) == 8


async def test_stock_counts_the_message_behind_a_gap_as_done() -> None:
    async with consumer_of(Scripted) as consumer:
        consumer._committed_offset[ZERO] = 6
        await consumer._add_gap(ZERO, 6, 8)  # as when 8 follows 5: 8 is in flight
        consumer.ack(stock_message(9))
        assert consumer._new_offset(ZERO) == 10, RECONSIDER + "SliceConsumer._add_gap"


async def test_a_slice_behind_a_gap_is_done_when_it_is_finished() -> None:
    async with consumer_of(ScriptedSlices) as consumer:
        consumer._committed_offset[ZERO] = 6
        behind, after = await slices(consumer, [8, 9])
        await consumer._add_gap(ZERO, 6, 8)
        after.finish(consumer)
        assert consumer._new_offset(ZERO) is None
        behind.finish(consumer)
        assert consumer._new_offset(ZERO) == 10


GAP = 100_000


async def test_stock_spells_out_every_offset_of_a_gap() -> None:
    async with consumer_of(Scripted) as consumer:
        consumer._committed_offset[ZERO] = 1
        await consumer._add_gap(ZERO, 1, GAP)
        consumer.ack(stock_message(GAP + 1))
        assert peak_bytes(consumer) > 20 * GAP, RECONSIDER + "SliceConsumer._add_gap"


async def test_a_gap_between_slices_costs_nothing() -> None:
    async with consumer_of(ScriptedSlices) as consumer:
        before, behind = await slices(consumer, [1, GAP])
        await consumer._add_gap(ZERO, 2, GAP)
        before.finish(consumer)
        behind.finish(consumer)
        assert peak_bytes(consumer) < 5_000
        assert consumer._new_offset(ZERO) == GAP + 1


def peak_bytes(consumer: Scripted) -> int:
    tracemalloc.start()
    try:
        consumer._new_offset(ZERO)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_stock_takes_a_refused_commit_for_done() -> None:
    async with consumer_of(Scripted) as consumer:
        consumer._committed_offset[ZERO], consumer.accepts_commits = 5, False
        consumer.ack(stock_message(5))
        await consumer.commit()
        await consumer.commit()
        assert (consumer.sent, consumer._committed_offset[ZERO]) == ([{ZERO: 6}], 6), (
            RECONSIDER + "SliceConsumer._commit_offsets"
        )


async def test_a_refused_commit_is_tried_again() -> None:
    async with consumer_of(ScriptedSlices) as consumer:
        consumer._committed_offset[ZERO], consumer.accepts_commits = 5, False
        (one,) = await slices(consumer, [5])
        one.finish(consumer)
        assert not await consumer.commit()
        consumer.accepts_commits = True
        assert await consumer.commit()
        assert not await consumer.commit(), "it is committed once"
        assert consumer.sent == [{ZERO: 6}, {ZERO: 6}]


async def test_stock_forgets_what_is_done_before_it_waits_for_the_rest_of_a_revoked_partition() -> None:
    async with consumer_of(Scripted) as consumer:
        consumer.ack(stock_message(0))
        assert await offered_while_revoked(consumer) == {}, RECONSIDER + "SliceConsumer.on_partitions_revoked"


async def test_what_is_finished_is_committed_while_a_partition_is_revoked_and_never_after() -> None:
    async with consumer_of(ScriptedSlices) as consumer:
        (one,) = await slices(consumer, [0])
        one.finish(consumer)
        assert await offered_while_revoked(consumer) == {ZERO: 1}
        assert consumer._new_offset(ZERO) is None


async def offered_while_revoked(consumer: Scripted) -> dict[TP, int]:
    """What a commit would send while Faust waits for what is in flight."""
    offered: list[dict[TP, int]] = []

    async def revoked(_: set[TP]) -> None:
        offered.append(consumer._filter_committable_offsets(list(consumer._filter_tps_with_pending_acks())))

    consumer._on_partitions_revoked = revoked
    await consumer.on_partitions_revoked({ZERO})
    return offered[0]


@pytest.mark.parametrize("end", ["on_task_error", "on_stop"])
async def test_stock_commits_what_a_failing_or_stopping_agent_has_let_go_of(end: str) -> None:
    async with consumer_of(Scripted) as consumer:
        consumer.ack(stock_message(0))  # as `take` does with its buffer when the body raises
        await {"on_task_error": lambda: consumer.on_task_error(ValueError()), "on_stop": consumer.on_stop}[end]()
        assert consumer.sent == [{ZERO: 1}], RECONSIDER + "exits.end_process in the agents"


@pytest.mark.parametrize("end", ["on_task_error", "on_stop"])
async def test_what_an_agent_lets_go_of_is_not_committed(end: str) -> None:
    async with consumer_of(ScriptedSlices) as consumer:
        (one,) = await slices(consumer, [0])
        consumer.ack(one)
        await {"on_task_error": lambda: consumer.on_task_error(ValueError()), "on_stop": consumer.on_stop}[end]()
        assert consumer.sent == []


async def test_waiting_for_what_is_in_flight_cannot_be_cancelled() -> None:
    """Why the deadline of a stop is a thread's: stock swallows the cancellation, and a stuck batch holds all."""
    async with consumer_of(ScriptedSlices) as consumer:
        (one,) = await slices(consumer, [0])
        waiting = asyncio.create_task(consumer.wait_empty())
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        waiting.cancel()
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done, RECONSIDER + "exits.end_after"
        one.finish(consumer)
        await asyncio.wait_for(waiting, 5)


# ---- what is delivered


async def delivered(consumer: Scripted, fetches: list[list[int]]) -> list[int]:
    """The offsets that reach the agents, of what is fetched."""
    found: list[int] = []

    async def callback(message: Any) -> None:
        found.append(message.offset)

    consumer.callback, consumer.fetches = callback, fetches
    consumer._read_offset[ZERO] = 5
    await asyncio.wait_for(consumer._drain_messages(faust.Service()), 10)
    return found


async def test_stock_drops_what_lies_below_its_position_without_a_word() -> None:
    async with consumer_of(Scripted) as consumer:
        assert await delivered(consumer, [[5, 6], [0, 1]]) == [5, 6], RECONSIDER + "SliceConsumer._in_sequence"


async def test_a_topic_made_anew_is_delivered() -> None:
    async with consumer_of(ScriptedSlices) as consumer:
        assert await delivered(consumer, [[5, 6], [0, 1]]) == [5, 6, 0, 1]


# ---- what an agent's body lets go of


async def after_an_exception(consumer: Scripted, messages: Iterable[ConsumerMessage], how: str) -> list[bool]:
    """Which messages are acknowledged once the body of an agent has raised."""
    app, held = consumer.app, list(messages)
    channel = app.channel()
    stream = channel.stream()
    for message in held:
        await channel.put(Event(app, None, b"{}", None, message))
    if how == "no acks":
        stream.enable_acks = False
    body: Any = stream.take(len(held), within=1.0) if how == "take" else stream.events()
    await asyncio.wait_for(anext(body), 10)
    with pytest.raises(RuntimeError, match="the body fails"):
        await body.athrow(RuntimeError("the body fails"))
    await body.aclose()
    del body  # what it iterates over is closed by the loop, once nothing refers to it
    await asyncio.sleep(0.01)
    await stream.stop()
    return [message.acked for message in held]


async def test_stock_take_acknowledges_a_batch_whose_body_raises() -> None:
    async with consumer_of(Scripted) as consumer:
        acked = await after_an_exception(consumer, map(stock_message, range(3)), "take")
        assert acked == [True, True, True], RECONSIDER + "the ban of take()"


async def test_stock_events_acknowledge_an_event_whose_body_raises() -> None:
    async with consumer_of(Scripted) as consumer:
        acked = await after_an_exception(consumer, [stock_message(0)], "events")
        assert acked == [True], RECONSIDER + "the ban of default acknowledgement"


async def test_an_agent_without_acknowledgement_keeps_its_slice() -> None:
    async with consumer_of(ScriptedSlices) as consumer:
        assert await after_an_exception(consumer, await slices(consumer, [0]), "no acks") == [False]


# ---- what is decoded, answered and served


async def test_stock_decoding_fails_before_the_agent_sees_anything() -> None:
    app = make_app("never-made")
    message = stock_message(0)
    message.value = b"{broken"
    with pytest.raises(ValueDecodeError):
        await app.topic("news", value_serializer="json").decode(message, propagate=True)


async def test_a_slice_passes_the_raw_topic_whole() -> None:
    async with consumer_of(ScriptedSlices) as consumer:
        (one,) = await slices(consumer, [0])
        topic = consumer.app.topic("news", key_serializer="raw", value_serializer="raw")
        event = await topic.decode(one, propagate=True)
        assert event.message is one


def test_stock_answers_whom_a_header_names_when_an_agent_yields() -> None:
    assert 'headers.get("Faust-Ag-ReplyTo")' in inspect.getsource(Agent._slurp), RECONSIDER + "the ban of yield"


async def test_no_agent_yields_and_no_header_reaches_faust() -> None:
    async with consumer_of(ScriptedSlices) as consumer:
        app = consumer.app
        wiring._add_agent(app, "news", "source-news", None, load_settings(env={}).broker)  # type: ignore[arg-type]
        (agent,) = app.agents.values()
        assert not inspect.isasyncgenfunction(agent.fun)
        (one,) = await slices(consumer, [0])
        assert not one.headers


def test_the_worker_command_of_stock_opens_a_web_server_whatever_the_app_says() -> None:
    """Why workers are started by `streams.worker` and not by Faust's command."""
    source = "".join(inspect.getsource(faust_worker_command).split())
    assert 'option("--with-web/--without-web",default=True' in source, RECONSIDER + "worker.main"


UNUSED = {"take", "noack_take", "Table", "GlobalTable", "send_soon", "SetTable", "group_by", "forward"}


def test_nothing_of_faust_is_used_that_is_not_pinned() -> None:
    for path in (Path(wiring.__file__).parent).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                assert node.attr not in UNUSED, f"{path.name}:{node.lineno} uses {node.attr}: pin what it does first"
