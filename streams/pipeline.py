"""One source's way from slice to committed offset; what is in flight overlaps.

    accept: decode, tokenise, queue  ->  wait for scores  ->  publish, in the partition's order  ->  wait for the broker

A slice waits for no other but for the one before it of its partition, so that a long text holds up its own partition
alone. So many slices and bytes may be in flight; beyond them nothing more is taken from Faust, and Faust stops asking
the broker for these partitions.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from faust.types import TP

from streams import metrics
from streams.consuming import Slice
from streams.decisions import decide
from streams.envelope import dead_letter
from streams.events import Event, Output, Rejected, iso
from streams.evidence import AlertEvidence
from streams.intake import Intake
from streams.learning.drift_meter import DriftMeter
from streams.learning.shadow import Shadow
from streams.live import Served
from streams.publishing import Publisher
from streams.room import Room, held_bytes
from streams.scoring import Outcome, Scorer, ScoringFailed
from streams.serving import Challenge, Part, Serving, by_event
from streams.settings import SurgeSettings
from streams.shedding import shed
from streams.trial import Scores

log = logging.getLogger(__name__)


class _Accepted(NamedTuple):
    slice: Slice
    serving: Serving
    verdicts: list[Event | Rejected]
    events: list[Event]  # those of the verdicts that are to be scored
    parts: list[Part]
    scores: list[asyncio.Future[list[Outcome]]]  # of each part, one outcome per event of it


class SourcePipeline:
    """Turns the slices of one source into acknowledged outputs.

    Args:
        intake: decodes the source's records.
        scorers: which together serve the source's tasks.
        tasks: those of the source.
        lane: which lane its texts wait in; 0 goes first.
        publisher: where outputs go.
        surge: which label of which task is observed per entity.
        room: for the slices that are in flight.
        finish: called with each slice whose outputs are acknowledged.
        shed_after_s: events that waited longer are set aside unscored; None never does.
        evidence: adds to alerts the words they rest on; None leaves them as they are.
        drift: looks at some of what was scored; None at nothing.
        shadow: compares champions with their challengers.
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
        room: Room,
        finish: Callable[[Slice], None],
        shed_after_s: float | None = None,
        evidence: AlertEvidence | None = None,
        drift: DriftMeter | None = None,
        shadow: Shadow | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._intake = intake
        self._tasks = frozenset(tasks)
        self._lane = lane
        self._publisher = publisher
        self._surge = surge
        self._finish = finish
        self._shed_after_s = shed_after_s
        self._evidence = evidence
        self._drift = drift
        self._shadow = shadow
        self._clock = clock
        self._room = room
        self._running: set[asyncio.Task[None]] = set()
        self._handed_over: dict[TP, asyncio.Future[None]] = {}  # of a partition's latest slice: its outputs are sent
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._metrics = metrics.SourceMetrics(intake.name, tasks)
        self._effective: dict[TP, Mapping[str, str]] = {}  # what the last slice of a partition was scored by
        self._offsets = metrics.EffectiveOffsets()
        self.serve_with(scorers)

    def serve_with(self, scorers: Sequence[Scorer], challenges: Sequence[Challenge] = ()) -> None:
        """Let these score all that is accepted from now on; a slice in flight stays with those it began with."""
        self._serving = Serving(scorers, challenges, self._tasks)

    async def run(self) -> None:
        """Nothing to do but to fail when a slice does; cancelled, it lets go of all that is in flight."""
        try:
            await self._failed
        finally:
            for task in self._running:
                task.cancel()

    async def accept(self, one: Slice) -> None:
        """Once there is room, decode a slice and queue its texts; the rest of its way is a task."""
        size_bytes = held_bytes(one.records)
        await self._room.enter(size_bytes)
        self._metrics.accepted(len(one.records))
        verdicts = self._intake.decode(one.records, self._clock())
        if self._shed_after_s is not None:
            verdicts = shed(one.records, verdicts, self._shed_after_s, self._clock())
        events = [verdict for verdict in verdicts if isinstance(verdict, Event)]
        serving = self._serving
        for scorer in serving.all:
            scorer.users += 1
        parts = serving.parts(events)
        scores = [await self._submit(part, events) for part in parts]
        before = self._handed_over.get(one.tp)
        handed_over = self._handed_over[one.tp] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(
            self._complete(_Accepted(one, serving, verdicts, events, parts, scores), before, handed_over)
        )
        self._running.add(task)
        task.add_done_callback(functools.partial(self._completed, size_bytes, serving.all))

    async def _submit(self, part: Part, events: Sequence[Event]) -> asyncio.Future[list[Outcome]]:
        return await part.scorer.submit([event.text for event in part.of(events)], self._lane)

    async def _complete(
        self, accepted: _Accepted, before: asyncio.Future[None] | None, handed_over: asyncio.Future[None]
    ) -> None:
        outputs: Sequence[Output] = self._outputs(accepted, await self._scored(accepted))
        if self._evidence is not None:
            outputs = await self._evidence.added(outputs, accepted.verdicts, accepted.serving.all)
        if before is not None:
            await before
        if self._effective.get(accepted.slice.tp) is not accepted.serving.releases:
            self._took_effect(accepted.slice, accepted.serving.releases)
        counts, sent_s = self._metrics.decided(outputs), time.monotonic()
        acknowledged = await self._publisher.send(outputs)
        handed_over.set_result(None)
        await acknowledged
        self._finish(accepted.slice)
        stamps_ms = [record.timestamp for record in accepted.slice.records if record.timestamp and record.timestamp > 0]
        self._metrics.settled(counts, time.monotonic() - sent_s, stamps_ms, self._clock())
        if self._shadow is not None and accepted.serving.challenges:
            self._shadow.offer(outputs, accepted.events, accepted.serving)

    async def _scored(self, accepted: _Accepted) -> list[Sequence[Outcome]]:
        """The outcomes of each event."""
        found = [await future for future in accepted.scores]
        if self._drift is not None:
            for part, its in zip(accepted.parts, found, strict=True):
                self._drift.sample(part.of(accepted.events), its)
        outcomes = by_event(accepted.parts, found, len(accepted.events))
        if any(scorer.retired or scorer.loaded.challenges for scorer in accepted.serving.all):
            await self._ask_again(accepted.events, outcomes)
        return outcomes

    async def _ask_again(self, events: Sequence[Event], outcomes: list[Sequence[Outcome]]) -> None:
        """Have what serves now score the events that a challenger failed on, or a scorer that was taken off."""
        while again := [place for place, row in enumerate(outcomes) if any(map(_again, row))]:
            scorers = self._serving.scorers
            for scorer in scorers:
                scorer.users += 1
            try:
                texts = [events[place].text for place in again]
                found = [await (await scorer.submit(texts, self._lane)) for scorer in scorers]
            finally:
                for scorer in scorers:
                    scorer.users -= 1
            for place, row in zip(again, zip(*found, strict=True), strict=True):
                outcomes[place] = row

    def _took_effect(self, one: Slice, releases: Mapping[str, str]) -> None:
        """The outputs of a slice are next in its partition, and the first of other releases than before."""
        self._effective[one.tp] = releases
        for task, release in releases.items():
            before = self._offsets.took_effect(task, one.tp.topic, one.tp.partition, release, one.first)
            if before is not None:
                where = f"{one.tp.topic}/{one.tp.partition}/{one.first}"
                log.info("%s: release %s from %s on, after %s", task, release, where, before)

    def _completed(self, size_bytes: int, scorers: Sequence[Scorer], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.leave(size_bytes)
        for scorer in scorers:
            scorer.users -= 1
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)

    def _outputs(self, accepted: _Accepted, outcomes: Sequence[Sequence[Outcome]]) -> list[Output]:
        outputs: list[Output] = []
        now_s = self._clock()
        now, rows = iso(now_s), iter(outcomes)
        for record, verdict in zip(accepted.slice.records, accepted.verdicts, strict=True):
            if isinstance(verdict, Event):
                results = self._results(verdict, next(rows))
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
                message = f"{event.at}: task {outcome.task}: {outcome.error}"
                return Rejected(event.at, "scoring", "ModelFailed", message, outcome.attempts, outcome.release)
            loaded, scores = outcome
            # One score of each since the model ran; most models serve no task but those of the source.
            pairs = zip(loaded.served, scores)  # noqa: B905
            if loaded.challenges:  # in the place of a champion that had other tasks to score
                results = [one for one in results if one[0].name not in loaded.tasks]
            results += pairs if loaded.tasks <= self._tasks else [one for one in pairs if one[0].name in self._tasks]
        return results


def _again(outcome: Outcome) -> bool:
    return isinstance(outcome, ScoringFailed) and outcome.again
