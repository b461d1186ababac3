"""Faust, fed by slices: one Faust message stands for consecutive records of one partition.

Faust keeps the group, the assignment, flow control and the commit timer. What differs from stock:

* `getmany` yields `Slice`s instead of single messages, so that Faust's cost is paid per slice;
* the offset to commit is a watermark: the end of the unbroken run of *finished* slices from the front, in delivery
  order. Faust's own acknowledgement of a slice (it also acknowledges messages that it skips in a rebalance) frees
  Faust's bookkeeping but never moves the watermark; only `Slice.finish` does.

Written against one version of Faust; `require_known_faust` refuses any other, and tests pin what is overridden.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import aiokafka
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError, RequestTimedOutError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams import metrics
from streams.exits import BrokerUnavailable
from streams.intake import Record
from streams.record_batches import read_any_batch

log = logging.getLogger(__name__)

FAUST_VERSIONS = frozenset({"0.15.3"})
AIOKAFKA_SERIES = "0.14."  # its subscription, coordinator and fetcher
MODE_SERIES = "0.7."  # services and threads, under Faust
_HELD_BACK_TURN_S = 0.01


class UnknownFaust(RuntimeError):
    """The installed Faust, aiokafka or mode is not one this module was tested against."""


def require_known_faust() -> None:
    """Refuse to start on versions whose internals were not checked.

    Raises:
        UnknownFaust: naming every version that was found, those expected, and what to install.
    """
    found = {name: version(name) for name in ("faust-streaming", "aiokafka", "mode-streaming")}
    known = (
        found["faust-streaming"] in FAUST_VERSIONS
        and found["aiokafka"].startswith(AIOKAFKA_SERIES)
        and found["mode-streaming"].startswith(MODE_SERIES)
    )
    if not known:
        wanted = [f"'faust-streaming=={max(FAUST_VERSIONS)}'", f"'aiokafka=={AIOKAFKA_SERIES}*'"]
        wanted.append(f"'mode-streaming=={MODE_SERIES}*'")
        raise UnknownFaust(
            f"{', '.join(f'{name} {one}' for name, one in found.items())}: what may be committed rests on the insides "
            f"of versions that were tested, and these were not; run: pip install {' '.join(wanted)}"
        )


def broker_away(error: BaseException | None) -> BaseException | None:
    """What ended Faust; `BrokerUnavailable` where it was a broker that cannot be reached."""
    if isinstance(error, (KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError, RequestTimedOutError)):
        return BrokerUnavailable(f"the broker went away: {error}")
    return error


class Slice(ConsumerMessage):
    """Records `first` to `offset` of one partition, as one Faust message. Its own value stays empty."""

    __slots__ = ("finished", "first", "records")

    def __init__(self, tp: TP, records: Sequence[Record], generation_id: int) -> None:
        last = records[-1]
        super().__init__(
            last.topic, last.partition, last.offset, (last.timestamp or 0) / 1000, 0, None, None, b"", None, 0, 0, tp,
            generation_id=generation_id,
        )  # fmt: skip
        self.records = records
        self.first = records[0].offset
        self.finished = False

    def finish(self, consumer: SliceConsumer) -> None:
        """Say that everything these records caused is acknowledged: their offsets may be committed."""
        self.finished = True
        consumer.release(self)
        self.ack(consumer)


class SliceConsumer(driver.Consumer):
    """The consumer of a worker without tables: every topic is delivered in slices of at most `max_slice_events`."""

    logger = logging.getLogger("faust.consumer")  # its comings and goings are Faust's, not ours
    max_slice_events = 256
    fetch_max_wait_ms = 500
    max_expanded_batch_mib = 64
    _thread: _ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._slices: dict[TP, deque[Slice]] = {}
        self._watermark: dict[TP, int] = {}
        self._next: dict[TP, int] = {}  # the offset to be read next, where known
        self._finished_slices = 0
        self._commits = 0
        self.assigned: frozenset[TP] = frozenset()
        self._drained = asyncio.Event()
        super().__init__(*args, **kwargs)

    # ---- delivery

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Slice]]:  # noqa: ASYNC109 - as Faust declares it
        """Fetch records and yield them in slices, partitions in turn."""
        generation = self.app.consumer_generation_id
        records, active = await self._wait_next_records(timeout)
        if not records or self.should_stop:
            return
        if not self.flow_active or generation != self.app.consumer_generation_id:
            # Fetched before a rebalance that has moved the positions since: start over from what is committed.
            await self.perform_seek()
            return
        for tp, part in self._cut(records, active):
            if self._next.get(tp, part[0].offset) < part[0].offset:
                await self._look_for_expired(tp, part[0].offset)
            if not self.flow_active or generation != self.app.consumer_generation_id:
                return
            part = self._in_sequence(tp, part)
            self._next[tp] = part[-1].offset + 1
            one = Slice(tp, part, generation)
            self._slices.setdefault(tp, deque()).append(one)
            yield tp, one

    def _cut(self, records: dict[TP, list[Record]], active: set[TP] | None) -> Iterator[tuple[TP, Sequence[Record]]]:
        size = self.max_slice_events
        waiting = deque(
            (tp, part, 0)
            for tp, part in records.items()
            if part and (active is None or tp in active or tp in self._buffered_partitions)
        )
        while waiting:
            tp, part, start = waiting.popleft()
            if start + size < len(part):
                waiting.append((tp, part, start + size))
            yield tp, part[start : start + size]

    def _in_sequence(self, tp: TP, part: Sequence[Record]) -> Sequence[Record]:
        """Stock Faust silently drops records below the last read offset; a truncated or new topic must be read."""
        read = self._read_offset[tp]
        if read is not None and part[-1].offset < read:
            log.error(
                "%s/%d: offsets went back from %d to %d (topic truncated or made anew?); reading on from there",
                tp.topic, tp.partition, read, part[0].offset,
            )  # fmt: skip
            self._forget([tp])
            self._committed_offset[tp] = None
        self._read_offset[tp] = None
        return part

    async def _wait_next_records(self, timeout: float) -> tuple[Any, set[TP] | None]:  # noqa: ASYNC109
        """As stock, but a partition that is held back is not forgotten for the second that stock waits for the others.

        With all held back, wake up when a queue drains; with some, ask the others in short turns.
        """
        if self.flow_active and self._buffered_partitions:
            if not self._get_active_partitions():
                self._drained.clear()
                try:
                    await asyncio.wait_for(self._drained.wait(), timeout)
                except TimeoutError:
                    return {}, set()
            timeout = min(timeout, _HELD_BACK_TURN_S)
        found: tuple[Any, set[TP] | None] = await super()._wait_next_records(timeout)
        return found

    def on_buffer_drop(self, tp: TP) -> None:
        """Call when a stream's queue has room again."""
        super().on_buffer_drop(tp)
        self._drained.set()

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: offsets that Kafka leaves out are part of the slice around them."""

    # ---- what may be committed

    def release(self, one: Slice) -> None:
        """Move the partition's watermark over the finished slices at the front."""
        self._finished_slices += 1
        waiting = self._slices.get(one.tp)
        while waiting and waiting[0].finished:
            self._watermark[one.tp] = waiting.popleft().offset + 1

    def ack(self, message: Any) -> bool:
        """Free Faust's bookkeeping of a message; see `Slice.finish` for what moves the watermark."""
        message.acked = True
        self._unacked_messages.discard(message)
        if self._waiting_for_ack is not None and not self._waiting_for_ack.done():
            self._waiting_for_ack.set_result(None)
        return True

    def _new_offset(self, tp: TP) -> int | None:
        return self._watermark.get(tp)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in list(self._watermark) if topics is None or tp in topics or tp.topic in topics)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        done: bool = await super()._commit(offsets)
        self._commits += done
        return done

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        """Stock notes as committed what the broker refused, and would not commit it again before the next record."""
        before = {tp: self._committed_offset[tp] for tp in offsets}
        done: bool = await super()._commit_offsets(offsets, start_new_transaction)
        if not done:
            self._committed_offset.update({tp: offset for tp, offset in before.items() if tp in self.assigned})
        return done

    # ---- rebalances

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stock waits here for what is running and commits it; afterwards nothing old may count."""
        await super().on_partitions_revoked(revoked)
        self._forget(revoked)
        self.assigned -= revoked

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Start every assigned partition from what is committed."""
        metrics.REBALANCES.inc()
        self._forget(list(self._slices) + list(self._watermark))
        await super().on_partitions_assigned(assigned, generation_id)
        self.assigned = frozenset(assigned)
        for tp in assigned:
            metrics.EVENTS_LOST.labels(tp.topic)  # Prometheus sees no first increase

    async def perform_seek(self) -> None:
        """Go back to what is committed: slices delivered so far will come again.

        Stock leaves a partition where it is that has nothing committed yet, or whose committed records retention has
        deleted: in the one case what was fetched and not finished would never come again, in the other nobody is told.
        """
        self._forget(list(self._slices) + list(self._watermark))
        await super().perform_seek()
        tps = set(self._active_partitions or ())
        starts = await self.earliest_offsets(*tps) if tps else {}
        for tp in tps:
            committed, start = self._committed_offset[tp], starts[tp]
            if committed is None or committed < start:
                self._count_expired(tp, committed, start)
                await self.seek(tp, start)
            self._next[tp] = max(start, committed or 0)

    async def _look_for_expired(self, tp: TP, found: int) -> None:
        """Records from `found` on have come where others were due: were those deleted, or never there?"""
        starts = await self.earliest_offsets(tp)
        self._count_expired(tp, self._next.get(tp), min(starts[tp], found))

    def _count_expired(self, tp: TP, due: int | None, start: int) -> None:
        """The log begins at `start`, and `due` was to be read next."""
        if due is None or due < 0 or start <= due:
            return
        log.error(
            "%s/%d: %d records are lost, offsets %d to %d: retention deleted them before they were read; "
            "reading on from %d. Make the topic's retention longer than the longest backlog, or add workers",
            tp.topic, tp.partition, start - due, due, start - 1, start,
        )  # fmt: skip
        metrics.EVENTS_LOST.labels(tp.topic).inc(start - due)

    def _forget(self, tps: Any) -> None:
        for tp in set(tps):
            self._slices.pop(tp, None)
            self._watermark.pop(tp, None)
            self._next.pop(tp, None)

    # ---- what operators see

    def lag(self) -> dict[TP, int]:
        """Records between the log end and the last finished one, by assigned partition, where known."""
        found = {}
        for tp in self.assigned:
            high = self.highwater(tp)
            if high is not None:
                found[tp] = max(0, high - self._reached(tp))
        return found

    def _reached(self, tp: TP) -> int:
        """The first offset that is not done. With nothing in flight that is the fetcher's position, which has passed
        what no consumer is ever given: expired records, markers of transactions."""
        if waiting := self._slices.get(tp):
            return waiting[0].first
        state = self._thread.partition_state(tp)
        if state is not None and state.has_valid_position:
            return int(state.position)
        return self._watermark.get(tp, self._committed_offset[tp] or 0)

    def progress(self) -> int:
        """How many slices were finished since the start; it stands still when nothing gets done."""
        return self._finished_slices

    def commits(self) -> int:
        """How often offsets were committed since the start."""
        return self._commits

    def uncommitted(self) -> int:
        """Records that are finished and whose offsets are not committed."""
        due = ((offset, self._committed_offset[tp]) for tp, offset in list(self._watermark.items()))
        return sum(max(0, offset - (committed or 0)) for offset, committed in due)

    def is_member(self) -> bool:
        """Whether the group has taken this worker in and its coordinator answers; with or without partitions."""
        return self._thread.is_member()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: stock checks per-message sensors that slices do not feed; the worker has its own watchdog."""

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class _ConsumerThread(driver.AIOKafkaConsumerThread):
    logger = SliceConsumer.logger
    consumer: SliceConsumer

    def partition_state(self, tp: TP) -> Any:
        """What aiokafka knows of an assigned partition; None before the start and when it is not assigned."""
        assignment = self._consumer and self._consumer._subscription.subscription.assignment
        aiokafka_tp = aiokafka.TopicPartition(tp.topic, tp.partition)
        return assignment.state_value(aiokafka_tp) if assignment and aiokafka_tp in assignment.tps else None

    def is_member(self) -> bool:
        if self._consumer is None:
            return False
        coordinator = self._consumer._coordinator
        return bool(coordinator.generation > 0 and coordinator.coordinator_id is not None)

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        read_any_batch(self.consumer.max_expanded_batch_mib)
        consumer = super()._create_worker_consumer(transport)
        # Stock asks the broker to hold an empty fetch for 1.5 s; librdkafka's mock broker takes that literally.
        consumer._fetch_max_wait_ms = self.consumer.fetch_max_wait_ms
        return consumer


def slice_transport(
    max_slice_events: int, fetch_max_wait_ms: int, max_expanded_batch_mib: int
) -> Callable[[Any, Any], driver.Transport]:
    """A Faust transport whose consumer delivers slices of at most so many records, and expands no batch further."""

    class Consumer(SliceConsumer):
        pass

    class Transport(driver.Transport):
        pass

    Consumer.max_slice_events = max_slice_events
    Consumer.fetch_max_wait_ms = fetch_max_wait_ms
    Consumer.max_expanded_batch_mib = max_expanded_batch_mib
    Transport.Consumer = Consumer
    return Transport
