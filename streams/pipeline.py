"""One source's way from slice to committed offset, in delivery order, each stage overlapping the next.

    accept: decode, tokenise, queue  ->  decide: wait for scores, publish  ->  settle: wait for the broker, finish

The queues between the stages are bounded: when one is full, nothing more is taken from Faust, and Faust stops asking
the broker for these partitions.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from streams import metrics
from streams.consuming import Slice
from streams.decisions import Output, dead_letter, decide
from streams.events import Event, Rejected
from streams.intake import Intake
from streams.publishing import Outgoing, Publisher
from streams.scoring import Outcome, Scored, Scorer, ScoringFailed
from streams.settings import SurgeSettings


class _Accepted(NamedTuple):
    slice: Slice
    verdicts: list[Event | Rejected]
    scores: Mapping[str, asyncio.Future[list[Outcome]]]  # by task, one outcome per event


class _Published(NamedTuple):
    slice: Slice
    outputs: Counter[str]
    sent_s: float
    acknowledged: asyncio.Future[None]


class SourcePipeline:
    """Turns the slices of one source into acknowledged outputs.

    Args:
        intake: decodes the source's records.
        scorers: one for each task of the source.
        publisher: where outputs go.
        topics: topic name of each output.
        surge: which label of which task is observed per entity.
        depth: how many slices may wait in each of the two queues.
        finish: called, in delivery order, with each slice whose outputs are acknowledged.
        clock: wall clock, seconds since 1970.
    """

    def __init__(
        self,
        intake: Intake,
        scorers: Mapping[str, Scorer],
        publisher: Publisher,
        topics: Mapping[str, str],
        surge: SurgeSettings,
        depth: int,
        finish: Callable[[Slice], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._intake = intake
        self._scorers = scorers
        self._publisher = publisher
        self._topics = topics
        self._surge = surge
        self._finish = finish
        self._clock = clock
        self._accepted: asyncio.Queue[_Accepted] = asyncio.Queue(depth)
        self._published: asyncio.Queue[_Published] = asyncio.Queue(depth)
        self._in_flight = metrics.SLICES_IN_FLIGHT.labels(intake.name)
        metrics.announce_source(intake.name, topics)

    async def accept(self, one: Slice) -> None:
        """Decode a slice and queue its texts; returns when there is room for it."""
        source = self._intake.name
        self._in_flight.inc()
        metrics.EVENTS_IN.labels(source).inc(len(one.records))
        verdicts = self._intake.decode(one.records, self._clock())
        texts = [verdict.text for verdict in verdicts if isinstance(verdict, Event)]
        scores = {task: await scorer.submit(texts) for task, scorer in self._scorers.items()}
        await self._accepted.put(_Accepted(one, verdicts, scores))

    async def run_decide(self) -> None:
        """Take slices in order, wait for their scores, publish what follows."""
        while True:
            accepted = await self._accepted.get()
            outcomes = {task: await future for task, future in accepted.scores.items()}
            outputs = self._outputs(accepted, outcomes)
            _count(outputs, self._intake.name)
            records = [Outgoing(self._topics[out.name], out.key, out.value) for out in outputs]
            sent_s = time.monotonic()
            acknowledged = await self._publisher.send(records)
            names = Counter[str](out.name for out in outputs)
            await self._published.put(_Published(accepted.slice, names, sent_s, acknowledged))

    async def run_settle(self) -> None:
        """Take slices in order, wait for the broker, and say that they are finished."""
        source = self._intake.name
        while True:
            published = await self._published.get()
            await published.acknowledged
            self._finish(published.slice)
            self._in_flight.dec()
            metrics.PUBLISH_S.labels(source).observe(time.monotonic() - published.sent_s)
            for name, count in published.outputs.items():
                metrics.EVENTS_OUT.labels(source, name).inc(count)
            latency, now_s = metrics.OUTPUT_LATENCY_S.labels(source), self._clock()
            for record in published.slice.records:
                if record.timestamp is not None and record.timestamp > 0:
                    latency.observe(max(0.0, now_s - record.timestamp / 1000))

    def _outputs(self, accepted: _Accepted, outcomes: Mapping[str, Sequence[Outcome]]) -> list[Output]:
        outputs: list[Output] = []
        now_s, event_index = self._clock(), 0
        for record, verdict in zip(accepted.slice.records, accepted.verdicts, strict=True):
            if isinstance(verdict, Event):
                by_task = {task: of_task[event_index] for task, of_task in outcomes.items()}
                event_index += 1
                failed = _failure(verdict, by_task)
                if failed is None:
                    scored = {task: one for task, one in by_task.items() if isinstance(one, Scored)}
                    outputs += decide(verdict, scored, self._surge, now_s)
                    continue
                verdict = failed
            outputs.append(dead_letter(record, self._intake.name, verdict, now_s))
        return outputs


def _failure(event: Event, outcomes: Mapping[str, Outcome]) -> Rejected | None:
    """An event that breaks one of its models is a dead letter as a whole: it has either all its outputs or none."""
    for task, outcome in outcomes.items():
        if isinstance(outcome, ScoringFailed):
            message = f"{event.at}: task {task}: {outcome.error}"[:1024]
            return Rejected(event.at, "scoring", "ModelFailed", message)
    return None


def _count(outputs: Sequence[Output], source: str) -> None:
    for name, _, value in outputs:
        match name:
            case "predictions":
                metrics.PREDICTIONS.labels(source, value["task"]).inc()
            case "alerts":
                metrics.ALERTS.labels(value["kind"], value["state"], value["severity"]).inc()
            case "routes":
                metrics.ROUTES.labels(value["action"]).inc()
            case "review":
                metrics.REVIEWS.labels(value["task"]).inc()
            case "dead_letters":
                metrics.DEAD_LETTERS.labels(source, value["stage"], value["error"]).inc()
