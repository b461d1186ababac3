"""The surge detector's input and output: observations in, surge alerts out, its state in a compacted topic.

State is kept by us and not in a Faust table, because it must equal, after any crash, the state of a run without one:
per entity the record carries the offset it reflects, and the order of writes is alerts, entity states, the partition's
meta record, the input offset, each acknowledged before the next. A crash between two of them is repaired by replaying
observations from the meta record's offset on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from pydantic import TypeAdapter, ValidationError

from streams import metrics
from streams.consuming import Slice
from streams.decisions import source_ref
from streams.envelope import dead_letter
from streams.events import Alert, Coordinates, Observation, Output, Rejected, iso
from streams.exits import BrokerUnavailable
from streams.intake import Record
from streams.publishing import Publisher
from streams.security import librdkafka_config
from streams.settings import Settings
from streams.surge_codec import precedence
from streams.surges import SurgeChange, SurgeDetector

log = logging.getLogger(__name__)

SOURCE = "observations"
META_KEY = "meta"
_ENTITY_PREFIX = "entity/"
_OBSERVATION = TypeAdapter(Observation)


class SurgePipeline:
    """Feeds each partition's observations to its detector, one slice at a time."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        finish: Callable[[Slice], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._finish = finish
        self._clock = clock
        self._generation: int | None = None
        self._detectors: dict[int, SurgeDetector] = {}
        self._metrics = metrics.SourceMetrics(SOURCE, ())

    async def accept(self, one: Slice) -> None:
        """Detect, publish what changed, save the state, then finish the slice."""
        self._metrics.accepted(len(one.records))
        detector = await self._detector(one.partition, one.generation_id)
        late_before = detector.late
        changes, dead = self._observe(detector, one.records)
        outputs = [Output("alerts", change.entity, self._alert(change, at)) for at, change in changes] + dead
        counts, sent_s = self._metrics.decided(outputs), time.monotonic()
        await (await self._publisher.send(outputs))
        publish_s = time.monotonic() - sent_s
        await self._save(one.partition, detector)
        self._finish(one)
        self._metrics.settled(counts, publish_s, (), self._clock())
        metrics.LATE_OBSERVATIONS.inc(max(0, detector.late - late_before))
        metrics.SURGES_OPEN.set(sum(each.open_surges for each in self._detectors.values()))

    def _observe(
        self, detector: SurgeDetector, records: Sequence[Record]
    ) -> tuple[list[tuple[Coordinates, SurgeChange]], list[Output]]:
        changes: list[tuple[Coordinates, SurgeChange]] = []
        rejected: list[Output] = []
        for record in records:
            at = Coordinates(record.topic, record.partition, record.offset)
            try:
                observation = _OBSERVATION.validate_json(record.value or b"")
            except ValidationError as error:
                why = Rejected(at, "intake", "WrongShape", f"{at}: not an observation: {error.error_count()} errors")
                rejected.append(dead_letter(record, SOURCE, why, self._clock()))
                continue
            changes += [(at, change) for change in detector.observe(record.offset, observation)]
        return changes, rejected

    async def _save(self, partition: int, detector: SurgeDetector) -> None:
        states = [
            Output("surge_state", _ENTITY_PREFIX + entity, state, partition)
            for entity, state in detector.changed().items()
        ]
        await (await self._publisher.send(states))
        await (await self._publisher.send([Output("surge_state", META_KEY, detector.meta(), partition)]))

    async def _detector(self, partition: int, generation: int | None) -> SurgeDetector:
        """The partition's detector; after a rebalance another worker may have moved on, so it is read anew."""
        if generation != self._generation:
            self._detectors.clear()
            self._generation = generation
            metrics.SURGES_OPEN.set(0)
        if partition not in self._detectors:
            self._detectors[partition] = await asyncio.to_thread(self._recover, partition)
        return self._detectors[partition]

    def _recover(self, partition: int) -> SurgeDetector:
        topic, deadline_s = self._settings.topics.surge_state, self._settings.worker.recovery_s
        states = read_compacted(librdkafka_config(self._settings.broker), topic, partition, deadline_s)
        meta = states.pop(META_KEY, None)
        entities = {key.removeprefix(_ENTITY_PREFIX): value for key, value in states.items()}
        if meta is not None:
            log.info("surge state of partition %d: %d entities recovered", partition, len(entities))
        return SurgeDetector.restored(self._settings.surge, entities, meta)

    def _alert(self, change: SurgeChange, at: Coordinates) -> Alert:
        surge = self._settings.surge
        return {
            "id": change.output_id,
            "event_id": change.alert_id,
            "event_time": iso(change.event_time_s),
            "scored_at": iso(self._clock()),
            "task": surge.task,
            "release": change.release,
            "label": surge.label,
            "score": 1.0 - change.counts["p_value"],
            "scores": {},
            "source": source_ref(SOURCE, at),
            "kind": "surge",
            "state": change.state,
            "severity": change.severity,
            "subject": change.entity,
            "evidence": {"counts": dict(change.counts), "headlines": list(change.evidence)},
        }


def read_compacted(config: dict[str, object], topic: str, partition: int, deadline_s: float) -> dict[str, bytes]:
    """The latest value of every key of one partition, tombstones applied.

    A worker that was cut off and came back may have written an old state after a newer one: of two values for one key
    the one with the higher `precedence` counts.

    Raises:
        BrokerUnavailable: the end was not reached within the deadline.
    """
    consumer = Consumer(
        {**config, "group.id": "streamgauge-state-reader", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    found: dict[str, bytes] = {}
    end_s = time.monotonic() + deadline_s
    try:
        consumer.assign([TopicPartition(topic, partition, 0)])
        while time.monotonic() < end_s:
            message = consumer.poll(0.5)
            if message is None:
                continue
            if error := message.error():
                if error.code() == KafkaError._PARTITION_EOF:
                    return found
                if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
                    raise BrokerUnavailable(
                        f"topic {topic} has no partition {partition}; run: streamgauge topics create"
                    )
                if error.fatal() or not error.retriable():
                    raise KafkaException(error)
                continue
            _apply(found, (message.key() or b"").decode("utf-8", "replace"), message.value())
    finally:
        consumer.close()
    raise BrokerUnavailable(f"topic {topic} partition {partition} was not read to its end in {deadline_s:g} s")


def _apply(found: dict[str, bytes], key: str, value: bytes | None) -> None:
    if value is None:
        found.pop(key, None)
    elif key not in found or precedence(value) >= precedence(found[key]):
        found[key] = value
