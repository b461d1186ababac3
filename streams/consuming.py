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
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams import metrics
from streams.header_names import read_any_header_name
from streams.intake import Record

log = logging.getLogger(__name__)

FAUST_VERSIONS = frozenset({"0.15.3"})
AIOKAFKA_SERIES = "0.14."
_HELD_BACK_TURN_S = 0.01


class UnknownFaust(RuntimeError):
    """The installed Faust or aiokafka is not one this module was tested against."""


def require_known_faust() -> None:
    """Refuse to start on versions whose internals were not checked.

    Raises:
        UnknownFaust: with the versions found and expected.
    """
    faust, kafka = version("faust-streaming"), version("aiokafka")
    if faust not in FAUST_VERSIONS or not kafka.startswith(AIOKAFKA_SERIES):
        raise UnknownFaust(
            f"faust-streaming {faust} with aiokafka {kafka} is not supported: install "
            f"faust-streaming {', '.join(sorted(FAUST_VERSIONS))} and aiokafka {AIOKAFKA_SERIES}*"
        )


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
    _thread: _ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._slices: dict[TP, deque[Slice]] = {}
        self._watermark: dict[TP, int] = {}
        self._finished_slices = 0
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
            if not self.flow_active or generation != self.app.consumer_generation_id:
                return
            part = self._in_sequence(tp, part)
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

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        """Stock takes a refused commit for done, and would not try again before more is finished."""
        before = {tp: self._committed_offset[tp] for tp in offsets}
        done: bool = await super()._commit_offsets(offsets, start_new_transaction)
        if not done:
            self._committed_offset.update(before)
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

    async def perform_seek(self) -> None:
        """Go back to what is committed: slices delivered so far will come again."""
        self._forget(list(self._slices) + list(self._watermark))
        await super().perform_seek()

    def _forget(self, tps: Any) -> None:
        for tp in set(tps):
            self._slices.pop(tp, None)
            self._watermark.pop(tp, None)

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

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        read_any_header_name()
        consumer = super()._create_worker_consumer(transport)
        # Stock asks the broker to hold an empty fetch for 1.5 s; librdkafka's mock broker takes that literally.
        consumer._fetch_max_wait_ms = self.consumer.fetch_max_wait_ms
        return consumer


def slice_transport(max_slice_events: int, fetch_max_wait_ms: int) -> Callable[[Any, Any], driver.Transport]:
    """A Faust transport whose consumer delivers slices of at most so many records."""

    class Consumer(SliceConsumer):
        pass

    class Transport(driver.Transport):
        pass

    Consumer.max_slice_events = max_slice_events
    Consumer.fetch_max_wait_ms = fetch_max_wait_ms
    Transport.Consumer = Consumer
    return Transport
