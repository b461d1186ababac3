"""The surge detector's input and output: observations in, surge alerts out, its state in a compacted topic.

State is kept by us and not in a Faust table, because it must equal, after any crash, the state of a run without one:
per entity the record carries the offset it reflects, and the order of writes is alerts, then entity states with the
partition's meta record in one transaction (see `surge_state`), then the input offset, each acknowledged before the
next. A crash between two of them is repaired by replaying observations from the meta record's offset on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from pydantic import TypeAdapter, ValidationError

from streams import metrics
from streams.consuming import Slice
from streams.decisions import source_ref
from streams.envelope import dead_letter
from streams.events import Alert, Coordinates, Observation, Output, Rejected, iso
from streams.intake import BadInput, Record, Unreadable
from streams.publishing import Publisher
from streams.settings import Settings
from streams.surge_state import SurgeState
from streams.surges import SurgeChange, SurgeDetector

log = logging.getLogger(__name__)

SOURCE = "observations"
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
        self._states: dict[int, SurgeState] = {}
        self._metrics = metrics.SourceMetrics(SOURCE, ())

    async def accept(self, one: Slice) -> None:
        """Detect, publish what changed, save the state, then finish the slice."""
        self._metrics.accepted(len(one.records))
        detector = await self._detector(one.partition, one.generation_id)
        late_before, repeated_before, evicted_before = detector.late, detector.repeated, detector.evicted.copy()
        changes, dead = self._observe(detector, one.records)
        outputs = [Output("alerts", change.entity, self._alert(change, at)) for at, change in changes] + dead
        counts, sent_s = self._metrics.decided(outputs), time.monotonic()
        await (await self._publisher.send(outputs))
        publish_s = time.monotonic() - sent_s
        await asyncio.to_thread(self._states[one.partition].write, detector.changed(), detector.meta())
        self._finish(one)
        self._metrics.settled(counts, publish_s, (), self._clock())
        metrics.LATE_OBSERVATIONS.inc(max(0, detector.late - late_before))
        metrics.REPEATED_OBSERVATIONS.inc(detector.repeated - repeated_before)
        for what, count in (detector.evicted - evicted_before).items():
            metrics.SURGE_EVICTIONS.labels(what).inc(count)
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
                bad = BadInput("WrongShape", f"not an observation: {error.error_count()} errors")
                if isinstance(record.value, Unreadable):
                    bad = BadInput(record.value.error, record.value.message)
                why = Rejected(at, "intake", bad.error, f"{at}: {bad}")
                rejected.append(dead_letter(record, SOURCE, why, self._clock()))
                continue
            changes += [(at, change) for change in detector.observe(record.offset, observation)]
        return changes, rejected

    async def _detector(self, partition: int, generation: int | None) -> SurgeDetector:
        """The partition's detector; after a rebalance another worker may have moved on, so it is read anew."""
        if generation != self._generation:
            self._detectors.clear()
            states, self._states = self._states, {}
            await asyncio.to_thread(states.clear)  # their connections end with the last reference
            self._generation = generation
            metrics.SURGES_OPEN.set(0)
        if partition not in self._detectors:
            self._detectors[partition] = await asyncio.to_thread(self._recover, partition)
        return self._detectors[partition]

    def _recover(self, partition: int) -> SurgeDetector:
        state = self._states[partition] = SurgeState(self._settings, partition)
        entities, meta = state.read()
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
            "out_of_scope": False,
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
