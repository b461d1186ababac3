"""One source's way from slice to committed offset, in delivery order, each stage overlapping the next.

    accept: decode, tokenise, queue  ->  decide: wait for scores, publish  ->  settle: wait for the broker, finish

The queues between the stages are bounded: when one is full, nothing more is taken from Faust, and Faust stops asking
the broker for these partitions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from streams import metrics
from streams.consuming import Slice
from streams.decisions import dead_letter, decide
from streams.events import Event, Output, OutputName, Rejected, iso
from streams.intake import Intake
from streams.live import Served
from streams.publishing import Publisher
from streams.scoring import Outcome, Scorer, Scores, ScoringFailed
from streams.settings import SurgeSettings


class _Accepted(NamedTuple):
    slice: Slice
    verdicts: list[Event | Rejected]
    scores: list[asyncio.Future[list[Outcome]]]  # of each scorer, one outcome per event


class _Published(NamedTuple):
    slice: Slice
    counts: Mapping[OutputName, int]  # by output
    sent_s: float
    acknowledged: asyncio.Future[None]


class SourcePipeline:
    """Turns the slices of one source into acknowledged outputs.

    Args:
        intake: decodes the source's records.
        scorers: which together serve the source's tasks.
        tasks: those of the source.
        lane: which lane its texts wait in; 0 goes first.
        publisher: where outputs go.
        surge: which label of which task is observed per entity.
        depth: how many slices may wait in each of the two queues.
        finish: called, in delivery order, with each slice whose outputs are acknowledged.
        clock: wall clock, seconds since 1970.
    """

    def __init__(
        self,
        intake: Intake,
        scorers: Sequence[Scorer],
        tasks: Sequence[str],
        lane: int,
        publisher: Publisher,
        surge: SurgeSettings,
        depth: int,
        finish: Callable[[Slice], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._intake = intake
        self._scorers = scorers
        self._tasks = frozenset(tasks)
        self._lane = lane
        self._publisher = publisher
        self._surge = surge
        self._finish = finish
        self._clock = clock
        self._accepted: asyncio.Queue[_Accepted] = asyncio.Queue(depth)
        self._published: asyncio.Queue[_Published] = asyncio.Queue(depth)
        self._metrics = metrics.SourceMetrics(intake.name, tasks)

    async def accept(self, one: Slice) -> None:
        """Decode a slice and queue its texts; returns when there is room for it."""
        self._metrics.accepted(len(one.records))
        verdicts = self._intake.decode(one.records, self._clock())
        texts = [verdict.text for verdict in verdicts if isinstance(verdict, Event)]
        scores = [await scorer.submit(texts, self._lane) for scorer in self._scorers]
        await self._accepted.put(_Accepted(one, verdicts, scores))

    async def run_decide(self) -> None:
        """Take slices in order, wait for their scores, publish what follows."""
        while True:
            accepted = await self._accepted.get()
            outcomes = [await future for future in accepted.scores]
            outputs = self._outputs(accepted, outcomes)
            counts = self._metrics.decided(outputs)
            sent_s = time.monotonic()
            acknowledged = await self._publisher.send(outputs)
            await self._published.put(_Published(accepted.slice, counts, sent_s, acknowledged))

    async def run_settle(self) -> None:
        """Take slices in order, wait for the broker, and say that they are finished."""
        while True:
            published = await self._published.get()
            await published.acknowledged
            self._finish(published.slice)
            stamps_ms = [
                record.timestamp for record in published.slice.records if record.timestamp and record.timestamp > 0
            ]
            self._metrics.settled(published.counts, time.monotonic() - published.sent_s, stamps_ms, self._clock())

    def _outputs(self, accepted: _Accepted, outcomes: Sequence[Sequence[Outcome]]) -> list[Output]:
        outputs: list[Output] = []
        now_s = self._clock()
        now, by_event = iso(now_s), zip(*outcomes, strict=True)
        for record, verdict in zip(accepted.slice.records, accepted.verdicts, strict=True):
            if isinstance(verdict, Event):
                results = self._results(verdict, next(by_event))
                if not isinstance(results, Rejected):
                    outputs += decide(verdict, results, self._surge, now)
                    continue
                verdict = results
            outputs.append(dead_letter(record, self._intake.name, verdict, now_s))
        return outputs

    def _results(self, event: Event, outcomes: Sequence[Outcome]) -> list[tuple[Served, Scores]] | Rejected:
        """By task; an event that breaks one of its models is a dead letter as a whole: all its outputs or none."""
        results: list[tuple[Served, Scores]] = []
        for outcome in outcomes:
            if isinstance(outcome, ScoringFailed):
                message = f"{event.at}: task {outcome.task}: {outcome.error}"[:1024]
                return Rejected(event.at, "scoring", "ModelFailed", message)
            loaded, scores = outcome
            for served, of_task in zip(loaded.served, scores):  # noqa: B905 - one of each since the model ran
                if served.name in self._tasks:
                    results.append((served, of_task))
        return results
