"""Slices and the offset that may be committed; and pins on the Faust that this is built into.

The consumer under test is a real `SliceConsumer` of a real Faust app (building one takes a millisecond); only what
would go over the network is scripted.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiokafka
import faust
import pytest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import metrics
from streams.consuming import (
    FAUST_VERSIONS,
    Slice,
    SliceConsumer,
    UnknownFaust,
    require_known_faust,
    slice_transport,
)
from tests.streams.records import FakeRecord

ZERO, ONE = TP("news", 0), TP("news", 1)
SIZE = 3


class OfflineConsumer(SliceConsumer):
    """The broker is some dictionaries: what it returns next, what is committed, where the logs begin and end."""

    max_slice_events = SIZE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.fetched: dict[TP, list[FakeRecord]] = {}
        self.committed: dict[TP, int] = {}
        self.ends: dict[TP, int] = {}
        self.starts: dict[TP, int] = {}
        self.sought: dict[TP, int] = {}
        self.on_fetch: Callable[[], None] = lambda: None
        self.asked_for_s: list[float] = []
        super().__init__(*args, **kwargs)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        self.on_fetch()
        self.asked_for_s.append(timeout)
        fetched, self.fetched = self.fetched, {}
        return fetched

    async def seek_to_committed(self) -> Mapping[TP, int]:
        return {tp: self.committed.get(tp, -1) for tp in (ZERO, ONE)}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return {tp: self.starts.get(tp, 0) for tp in partitions}

    async def _seek(self, partition: TP, offset: int) -> None:
        self.sought[partition] = offset

    def highwater(self, tp: TP) -> int:
        return self.ends[tp]


async def ignore(*_: Any, **__: Any) -> None:
    pass


def make_app(folder: str) -> faust.App:
    return faust.App(
        "offline", broker="kafka://127.0.0.1:1", web_enabled=False, datadir=folder, topic_disable_leader=True,
        topic_allow_declare=False,
    )  # fmt: skip


@asynccontextmanager
async def offline(folder: str = "never-made") -> AsyncIterator[OfflineConsumer]:
    app = make_app(folder)
    app.transport = driver.Transport(app.conf.broker_consumer, app)
    consumer = OfflineConsumer(
        app.transport, callback=ignore, on_partitions_revoked=ignore, on_partitions_assigned=ignore
    )
    try:
        yield consumer
    finally:
        consumer._thread.thread_loop.close()


def records(tp: TP, offsets: Iterable[int]) -> list[FakeRecord]:
    return [FakeRecord(b"{}", offset, tp.topic, tp.partition) for offset in offsets]


async def deliver(consumer: OfflineConsumer, fetched: Mapping[TP, Iterable[int]]) -> list[Slice]:
    consumer.fetched = {tp: records(tp, offsets) for tp, offsets in fetched.items()}
    return [one async for _, one in consumer.getmany(1.0)]


def committable(consumer: SliceConsumer) -> dict[TP, int]:
    """What Faust's commit timer would send, asked in its own way."""
    return consumer._filter_committable_offsets(list(consumer._filter_tps_with_pending_acks()))


def spans(slices: Sequence[Slice]) -> list[tuple[int, int, int]]:
    return [(one.tp.partition, one.first, one.offset) for one in slices]


# ---- delivery


async def test_partitions_take_turns_in_slices() -> None:
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO, ONE}, 1)
        got = await deliver(consumer, {ZERO: range(7), ONE: range(10, 14)})
        assert spans(got) == [(0, 0, 2), (1, 10, 12), (0, 3, 5), (1, 13, 13), (0, 6, 6)]
        assert [record.offset for record in got[1].records] == [10, 11, 12]


async def test_what_was_fetched_before_a_rebalance_is_not_delivered_but_fetched_again() -> None:
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO}, 1)
        consumer.committed[ZERO] = 5

        def rebalance() -> None:
            consumer.app.consumer_generation_id += 1

        consumer.on_fetch = rebalance
        assert await deliver(consumer, {ZERO: range(9)}) == []
        assert consumer._read_offset[ZERO] == 5
        assert committable(consumer) == {}


async def test_a_rebalance_between_two_slices_ends_the_delivery() -> None:
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO}, 1)
        consumer.fetched = {ZERO: records(ZERO, range(9))}
        got = []
        async for _, one in consumer.getmany(1.0):
            got.append(one)
            consumer.app.consumer_generation_id += 1
        assert spans(got) == [(0, 0, 2)]


async def test_nothing_is_delivered_while_the_flow_is_stopped() -> None:
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO}, 1)
        consumer.on_fetch = consumer.stop_flow
        assert await deliver(consumer, {ZERO: range(9)}) == []


async def test_a_topic_made_anew_is_read_from_its_beginning_and_committed_again() -> None:
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO}, 1)
        consumer._read_offset[ZERO] = consumer._committed_offset[ZERO] = 100
        (one,) = await deliver(consumer, {ZERO: range(2)})
        one.finish(consumer)
        assert committable(consumer) == {ZERO: 2}


async def test_a_full_queue_that_drains_wakes_the_fetcher() -> None:
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO}, 1)
        consumer.on_buffer_full(ZERO)
        consumer.fetched = {ZERO: records(ZERO, range(3))}
        waiting = asyncio.create_task(consumer._wait_next_records(30.0))
        await asyncio.sleep(0)
        assert not waiting.done()
        consumer.on_buffer_drop(ZERO)
        found, _ = await asyncio.wait_for(waiting, 5)
        assert len(found[ZERO]) == 3


async def test_a_partition_that_is_held_back_does_not_wait_out_a_fetch_of_the_others() -> None:
    """Stock waits a second for the others: a busy partition beside quiet ones then gets a few slices a second."""
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO, ONE}, 1)
        await consumer._wait_next_records(30.0)
        consumer.on_buffer_full(ZERO)
        await consumer._wait_next_records(30.0)
        consumer.on_buffer_drop(ZERO)
        await consumer._wait_next_records(30.0)
        whole, held_back, again = consumer.asked_for_s
        assert (whole, again) == (30.0, 30.0)
        assert held_back <= 0.05


# ---- what may be committed


async def test_only_finish_moves_the_watermark() -> None:
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO}, 1)
        first, second = await deliver(consumer, {ZERO: range(6)})
        for one in (first, second):
            consumer.track_message(one)
        second.finish(consumer)
        assert consumer.ack(first)  # as stock does with what it skips
        assert not consumer.unacked
        assert committable(consumer) == {}
        first.finish(consumer)
        assert committable(consumer) == {ZERO: 6}
        assert consumer.progress() == 2


async def test_offsets_that_kafka_leaves_out_belong_to_the_slice_around_them() -> None:
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO}, 1)
        (one,) = await deliver(consumer, {ZERO: [2, 40, 41]})
        one.finish(consumer)
        assert committable(consumer) == {ZERO: 42}


async def test_lag_counts_from_what_is_finished() -> None:
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO, ONE}, 1)
        consumer.ends = {ZERO: 10, ONE: 8}
        consumer._committed_offset[ONE] = 8
        first, _ = await deliver(consumer, {ZERO: range(6)})
        assert consumer.lag() == {ZERO: 10, ONE: 0}
        first.finish(consumer)
        assert consumer.lag() == {ZERO: 7, ONE: 0}
        await consumer.on_partitions_revoked({ZERO})
        assert consumer.lag() == {ONE: 0}


class World:
    """What a partition's committed offset should be, told by the slices delivered since it was last forgotten."""

    def __init__(self, consumer: OfflineConsumer) -> None:
        self.consumer = consumer
        self.delivered: dict[TP, list[Slice]] = {ZERO: [], ONE: []}  # since the last rebalance or seek
        self.ever: list[Slice] = []
        self.position = {ZERO: 0, ONE: 0}
        self.unfinished_ever: set[tuple[TP, int]] = set()

    def forget(self, tps: Iterable[TP]) -> None:
        for tp in tps:
            self.delivered[tp] = []
            self.position[tp] = self.consumer.committed.get(tp, 0)

    def expected(self, tp: TP) -> int | None:
        end = None
        for one in self.delivered[tp]:
            if not one.finished:
                break
            end = one.offset + 1
        return end

    def check(self) -> None:
        offers = committable(self.consumer)
        for tp in (ZERO, ONE):
            expected = self.expected(tp)
            assert self.consumer._new_offset(tp) == expected
            unfinished = [one.first for one in self.delivered[tp] if not one.finished]
            if tp in offers:
                assert offers[tp] == expected
                assert all(offers[tp] <= first for first in unfinished)
                assert offers[tp] > self.consumer.committed.get(tp, -1)

    async def step(self, action: str, tp: TP, number: int, gaps: list[int]) -> None:
        match action:
            case "deliver":
                offsets, at = [], self.position[tp]
                for gap in gaps:
                    at += gap
                    offsets.append(at)
                    at += 1
                self.position[tp] = at
                got = await deliver(self.consumer, {tp: offsets})
                for one in got:  # as `_drain_messages` and the conductor do
                    self.consumer.track_message(one)
                    self.consumer._read_offset[tp] = one.offset
                self.delivered[tp] += got
                self.ever += got
            case "finish" if self.ever:
                one = self.ever[number % len(self.ever)]
                if not one.finished:
                    one.finish(self.consumer)
            case "ack" if self.ever:
                self.consumer.ack(self.ever[number % len(self.ever)])
            case "commit":
                offers = committable(self.consumer)
                self.consumer.committed |= offers
                self.consumer._committed_offset.update(offers)
            case "seek":
                await self.consumer.perform_seek()
                self.forget([ZERO, ONE])
            case "rebalance":  # the partition goes away and comes back, perhaps with nothing committed in between
                self.consumer.app.consumer_generation_id += 1
                await self.consumer.on_partitions_revoked({tp})
                assert self.consumer._new_offset(tp) is None
                await self.consumer.on_partitions_assigned({ZERO, ONE}, self.consumer.app.consumer_generation_id)
                await self.consumer.perform_seek()
                self.forget([ZERO, ONE])
        self.check()


actions = st.tuples(
    st.sampled_from(["deliver"] * 4 + ["finish"] * 6 + ["ack", "ack", "commit", "commit", "seek", "rebalance"]),
    st.sampled_from([ZERO, ONE]),
    st.integers(0, 50),
    st.lists(st.sampled_from([0, 0, 0, 1, 7]), min_size=1, max_size=8),
)


async def follow(steps: Sequence[tuple[str, TP, int, list[int]]], order: random.Random) -> None:
    """Check after every step; in the end finish all that is under way, in any order: then all of it is committed."""
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO, ONE}, 0)
        world = World(consumer)
        for step in steps:
            await world.step(*step)
        unfinished = [one for part in world.delivered.values() for one in part if not one.finished]
        order.shuffle(unfinished)
        for one in unfinished:
            one.finish(consumer)
            world.check()
        for tp, delivered in world.delivered.items():
            assert consumer._new_offset(tp) == (delivered[-1].offset + 1 if delivered else None)


@pytest.mark.parametrize("examples", [150, pytest.param(2_000, marks=pytest.mark.slow)])
def test_the_committed_offset_is_the_end_of_the_finished_prefix(examples: int) -> None:
    """Whatever the order of finishing, and whatever stock acknowledges, skips, revokes or seeks in between."""

    @given(st.lists(actions, max_size=40), st.randoms(use_true_random=False))
    @settings(max_examples=examples, deadline=None)
    def hold(steps: list[tuple[str, TP, int, list[int]]], order: random.Random) -> None:
        asyncio.run(follow(steps, order))

    hold()


# ---- pins on Faust 0.15.3: when one of these fails, the module has to be read again, line by line

OURS = {
    "__init__", "_cut", "_in_sequence", "_look_for_expired", "_count_expired", "_forget", "_reached", "release", "lag",
    "progress", "commits", "uncommitted", "is_member",
}  # fmt: skip
OVERRIDDEN = sorted(name for name, found in vars(SliceConsumer).items() if callable(found) and name not in OURS)


def test_the_list_of_what_is_overridden() -> None:
    assert OVERRIDDEN == [
        "_add_gap", "_commit", "_commit_offsets", "_filter_tps_with_pending_acks", "_new_consumer_thread",
        "_new_offset", "_wait_next_records", "ack", "getmany", "on_buffer_drop", "on_partitions_assigned",
        "on_partitions_revoked", "perform_seek", "verify_event_path",
    ]  # fmt: skip


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_exists_with_the_same_arguments(name: str) -> None:
    stock, ours = getattr(driver.Consumer, name), getattr(SliceConsumer, name)

    def arguments(function: Any) -> list[tuple[str, Any]]:
        return [(one.name, one.default) for one in inspect.signature(function).parameters.values()]

    assert arguments(ours) == arguments(stock)
    unwrapped = inspect.unwrap(stock)
    assert inspect.iscoroutinefunction(inspect.unwrap(ours)) == inspect.iscoroutinefunction(unwrapped)
    assert inspect.isasyncgenfunction(inspect.unwrap(ours)) == inspect.isasyncgenfunction(unwrapped)


async def test_the_fields_of_the_consumer_that_are_used() -> None:
    async with offline() as consumer:
        for name in (
            "_unacked_messages", "_waiting_for_ack", "_committed_offset", "_read_offset", "_buffered_partitions",
            "_paused_partitions", "flow_active", "should_stop", "_get_active_partitions",
        ):  # fmt: skip
            assert hasattr(consumer, name), name
        assert consumer._read_offset[TP("never", 0)] is None
        assert isinstance(consumer.app.consumer_generation_id, int)


def test_how_faust_commits_and_drops() -> None:
    """The watermark goes out through `_new_offset`; a fetched record below `_read_offset` is dropped without a word."""
    commit = inspect.getsource(driver.Consumer._filter_committable_offsets)
    assert "self._new_offset(tp)" in commit and "self._should_commit(tp, offset)" in commit
    drain = inspect.getsource(driver.Consumer._drain_messages)
    assert "r_offset is None or offset >= r_offset" in drain
    assert "getmany(timeout=1.0)" in drain


async def test_the_fetch_wait_is_set_where_the_driver_sets_it(tmp_path: Path) -> None:
    app = make_app(str(tmp_path))
    app.transport = slice_transport(7, 10, 8)(app.conf.broker_consumer, app)
    consumer = app.transport.create_consumer(
        callback=ignore, on_partitions_revoked=ignore, on_partitions_assigned=ignore
    )
    assert isinstance(consumer, SliceConsumer)
    assert consumer.max_slice_events == 7
    try:
        stock = driver.AIOKafkaConsumerThread._create_worker_consumer(consumer._thread, app.transport)
        ours = consumer._thread._create_worker_consumer(app.transport)
        assert (stock._fetch_max_wait_ms, ours._fetch_max_wait_ms) == (1500, 10)
        assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in inspect.getsource(aiokafka.AIOKafkaConsumer.start)
        for one in (stock, ours):
            await one.stop()
    finally:
        consumer._thread.thread_loop.close()


def test_the_installed_versions_are_known() -> None:
    require_known_faust()


@pytest.mark.parametrize(
    ("package", "other"), [("faust-streaming", "0.16.0"), ("aiokafka", "0.15.1"), ("mode-streaming", "0.8.0")]
)
def test_another_version_is_refused(package: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / f"{package.replace('-', '_')}-{other}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {other}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UnknownFaust, match=rf"{package} {other}.*pip install 'faust-streaming=={min(FAUST_VERSIONS)}'"):
        require_known_faust()


# ---- what retention deleted


def lost(topic: str) -> float:
    return float(metrics.EVENTS_LOST.labels(topic)._value.get())


async def test_a_partition_with_nothing_committed_is_read_from_its_beginning_again() -> None:
    """What was fetched of it and not finished when the group rebalanced would otherwise never be seen."""
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO, ONE}, 1)
        consumer.committed, consumer.starts = {ONE: 5}, {ZERO: 3}
        await deliver(consumer, {ZERO: range(3, 6), ONE: range(5, 8)})
        await consumer.perform_seek()
        assert consumer.sought == {ZERO: 3}  # the other went back to what is committed by itself


async def test_a_log_that_begins_behind_what_is_committed_is_said_counted_and_gone_on_with(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO, ONE}, 1)
        consumer.committed, consumer.starts, before = {ZERO: 10, ONE: 7}, {ZERO: 50, ONE: 7}, lost("news")
        await consumer.perform_seek()
        assert consumer.sought == {ZERO: 50}
        assert lost("news") - before == 40
        assert "news/0: 40 records are lost, offsets 10 to 49" in caplog.text and "news/1" not in caplog.text
        await deliver(consumer, {ZERO: range(50, 52), ONE: range(7, 9)})
        assert lost("news") - before == 40


async def test_retention_that_overtakes_a_running_worker_is_said_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO}, 1)
        before = lost("news")
        await deliver(consumer, {ZERO: range(3)})
        consumer.starts = {ZERO: 8}
        assert spans(await deliver(consumer, {ZERO: range(8, 10)})) == [(0, 8, 9)]
        assert lost("news") - before == 5
        assert "news/0: 5 records are lost, offsets 3 to 7" in caplog.text


async def test_offsets_that_never_had_a_record_are_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    """Markers of transactions, compaction, a new group on an old topic."""
    async with offline() as consumer:
        await consumer.on_partitions_assigned({ZERO}, 1)
        consumer.starts, before = {ZERO: 4}, lost("news")
        await consumer.perform_seek()
        await deliver(consumer, {ZERO: range(4, 6)})
        await deliver(consumer, {ZERO: [7, 8, 12]})
        await deliver(consumer, {ZERO: [30]})
        assert lost("news") == before
        assert "lost" not in caplog.text


# ---- commits


async def test_offsets_that_the_broker_refused_stay_to_be_committed() -> None:
    """Stock notes them as committed, and commits nothing more until another record is finished."""
    async with offline() as consumer:
        answers = iter([False, True])

        async def answer(_: Mapping[TP, int]) -> bool:
            return next(answers)

        consumer._thread.commit = answer  # type: ignore[assignment, method-assign]  # the broker's side
        consumer._thread.assignment = lambda: {ZERO}  # type: ignore[method-assign]
        await consumer.on_partitions_assigned({ZERO}, 1)
        (one,) = await deliver(consumer, {ZERO: range(3)})
        one.finish(consumer)
        assert consumer.uncommitted() == 3
        assert not await consumer._commit_offsets(committable(consumer))
        assert (committable(consumer), consumer.commits(), consumer.uncommitted()) == ({ZERO: 3}, 0, 3)
        assert await consumer._commit_offsets(committable(consumer))
        assert (committable(consumer), consumer.commits(), consumer.uncommitted()) == ({}, 1, 0)
