"""Texts to scores: what is submitted is tokenised, waits in its lane, and comes back as one outcome for every text.

An outcome is `Scored`, or the `ScoringFailed` that becomes the event's dead letter: the text, alone, breaks the model
(see `trial`). When it is the model that is ill, its texts wait for another way to run it (see `ladder`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from models.classifier import Encoded
from models.windows import merge
from streams import metrics
from streams.adaptive import Bounds, Pace
from streams.batching import Batch, Limits, MicroBatcher
from streams.ladder import Ladder, Way
from streams.live import Loaded, Served
from streams.settings import LANES
from streams.trial import Poison, Ran, Row, Scores, rounded

EVIDENCE_LANE = len(LANES)  # below those that sources can name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScoringFailed:
    """The model of these tasks failed on this one text, as often as it was tried alone.

    `again`: ask what serves now. It was a challenger that failed, or the scorer was retired and nothing could run it.
    """

    task: str
    error: str
    attempts: int
    release: str
    again: bool = False


# Per text: the model, and its scores by each of `loaded.served`. Bare tuples: this is made for every event.
Scored = tuple[Loaded, Row]
Outcome = Scored | ScoringFailed


class _Sink(Protocol):
    def fill(self, place: int, outcome: Outcome) -> None: ...


# A window of a text that waits for the model: where its outcome goes, at which place, its token ids.
Item = tuple[_Sink, int, Sequence[int]]


class _Slots:
    """The outcomes of one submission; `done` resolves when the last slot is filled."""

    def __init__(self, count: int, done: asyncio.Future[list[Outcome]]) -> None:
        self._outcomes: list[Outcome | None] = [None] * count
        self._missing = count
        self._done = done

    def fill(self, place: int, outcome: Outcome) -> None:
        self._outcomes[place] = outcome
        self._missing -= 1
        if not self._missing and not self._done.done():
            self._done.set_result([one for one in self._outcomes if one is not None])


class _Windows:
    """Collects the windows of one long text and fills its slot with what they say together."""

    def __init__(self, slots: _Slots, place: int, windows: Sequence[Sequence[int]]) -> None:
        self._slots = slots
        self._place = place
        self._lengths = [len(ids) for ids in windows]
        self._outcomes: list[Outcome | None] = [None] * len(windows)
        self._missing = len(windows)

    def fill(self, place: int, outcome: Outcome) -> None:
        self._outcomes[place] = outcome
        self._missing -= 1
        if not self._missing:
            self._slots.fill(self._place, self._merged([one for one in self._outcomes if one is not None]))

    def _merged(self, outcomes: Sequence[Outcome]) -> Outcome:
        scores = []
        for one in outcomes:
            if isinstance(one, ScoringFailed):
                return one
            loaded, of_window = one
            scores.append(of_window)
        by_task = zip(*scores, strict=True)
        return loaded, tuple(self._together(served, rows) for served, rows in zip(loaded.served, by_task, strict=True))

    def _together(self, served: Served, rows: Iterable[Scores]) -> Scores:
        found = np.array([row for _, row in rows], np.float32)
        alerting = [rule.column for rule in served.alert_rules]
        return rounded(merge(found, self._lengths, served.task.long_text, alerting), len(served.labels))


class Scorer:
    """Scores the texts of one model, whichever sources they come from.

    Args:
        loaded: the model.
        bounds: what the batches may be.
        clock: monotonic seconds.
        jitter: uniform in [0, 1), for when the model is ill.
    """

    def __init__(
        self,
        loaded: Loaded,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.loaded = loaded
        self.name = loaded.name
        self.batcher: MicroBatcher[Item] = MicroBatcher(len(LANES) + 1, loaded.model.packs)
        self.ladder = Ladder(loaded, bounds, clock, jitter)
        self._clock = clock
        self._tokeniser: Executor | None = None
        self._queued: Callable[[], None] = lambda: None
        self.users = 0  # slices that count on it; while there are some a retired scorer goes on
        self.retired = False
        self.metrics = metrics.ScorerMetrics(self.name)

    def serves(self, tasks: Collection[str]) -> bool:
        """Whether the model has a head for any of these tasks."""
        return any(served.name in tasks for served in self.loaded.served)

    def attach(self, tokeniser: Executor, queued: Callable[[], None]) -> None:
        """Say on which thread texts are tokenised, and whom to tell that some wait."""
        self._tokeniser, self._queued = tokeniser, queued

    @property
    def pace(self) -> Pace:
        """How large and how patient batches are now."""
        return self.ladder.way.pace

    def patience_s(self) -> float:
        """How long the oldest of what waits should wait for more; see `Pace`."""
        return self.pace.patience_s(len(self.batcher), self.batcher.tokens)

    def limits(self, slots: int) -> Limits:
        """Of the next batch. Where small batches cost no more a token than large ones, all slots share what waits."""
        limits = self.pace.limits
        if not self.ladder.way.runner.model.packs:
            return limits
        share = max(2 * limits.spare_tokens, -(-self.batcher.tokens // slots))
        return limits._replace(max_tokens=min(limits.max_tokens, share))

    async def submit(self, texts: Sequence[str], lane: int = 0) -> asyncio.Future[list[Outcome]]:
        """Tokenise and queue texts; the future resolves to one outcome for each, in order."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Outcome]] = loop.create_future()
        if not texts:
            done.set_result([])
            return done
        encoded = await loop.run_in_executor(self._tokeniser, self._encode, texts)
        now_s = self._clock()
        self.batcher.add(self._items(encoded, _Slots(len(texts), done)), lane, now_s)
        self.pace.arrived(len(texts), now_s)
        self._queued()
        return done

    @property
    def idle(self) -> bool:
        """Whether no text waits for the model, and something can run it."""
        return not len(self.batcher) and not self.ladder.holding

    async def submit_windows(self, windows: Sequence[Sequence[int]], lane: int) -> asyncio.Future[list[Outcome]]:
        """Queue token ids as they are; the future resolves to one outcome for each, in order."""
        done: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        slots = _Slots(len(windows), done)
        items = (((slots, place, ids), len(ids)) for place, ids in enumerate(windows))
        self.batcher.add(items, lane, self._clock())
        self._queued()
        return done

    def _encode(self, texts: Sequence[str]) -> list[Encoded | ScoringFailed]:
        """On the tokeniser's thread; when it fails on some texts, the others are read one by one."""
        try:
            return list(self.loaded.model.encode(texts))
        except Exception as error:
            if len(texts) > 1:
                return [one for text in texts for one in self._encode([text])]
            why = f"the tokeniser failed: {type(error).__name__}: {error}"[:500]
            return [ScoringFailed(self.name, why, 1, self.loaded.model.release, self.loaded.challenges)]

    def _items(self, encoded: Sequence[Encoded | ScoringFailed], slots: _Slots) -> Iterable[tuple[Item, int]]:
        for place, one in enumerate(encoded):
            if isinstance(one, ScoringFailed):
                slots.fill(place, one)
                continue
            if len(one.windows) > 1 or one.cut:
                self.metrics.long_text(len(one.windows), one.cut)
            if len(one.windows) == 1:
                ids = one.windows[0]
                yield (slots, place, ids), len(ids)
                continue
            sink = _Windows(slots, place, one.windows)
            for number, ids in enumerate(one.windows):
                yield (sink, number, ids), len(ids)

    def compute(self, way: Way, batch: Batch[Item]) -> Ran:
        """On a model thread: run the batch this way.

        Raises:
            trial.Ill: no text is to blame; `put_back` the batch.
        """
        return way.runner.run([ids for _, _, ids in batch.items])

    def deliver(self, way: Way, batch: Batch[Item], ran: Ran) -> None:
        """Back on the loop: fill the slots, and learn from the batch."""
        padded_tokens = way.runner.model.padded_tokens([len(ids) for _, _, ids in batch.items])
        way.learn(padded_tokens, ran)
        self.ladder.progressed()
        self.metrics.ran(batch, padded_tokens, ran.seconds)
        self.metrics.learned(self.pace)
        if ran.failed:
            self.metrics.failed(ran.failed)
            if ran.too_many_tokens is not None:
                self.ladder.metrics.out_of_memory()
        loaded = self.loaded
        for (sink, place, _), row in zip(batch.items, ran.rows, strict=True):
            sink.fill(place, self._blamed(row) if isinstance(row, Poison) else (loaded, row))

    def _blamed(self, poison: Poison) -> ScoringFailed:
        log.warning("%s: the model failed on one text, again and again: %s", self.name, poison.error)
        return ScoringFailed(
            self.name, poison.error, poison.attempts, self.loaded.model.release, self.loaded.challenges
        )

    def give_up(self) -> None:
        """Of a retired scorer that nothing can run: let what waits be asked of whatever serves now."""
        failed = ScoringFailed(self.name, "nothing could run it", 0, self.loaded.model.release, again=True)
        for lane, queue in enumerate(self.batcher.lanes):
            while len(queue):
                for sink, place, _ in self.batcher.pop(lane, self.pace.limits, self._clock()).items:
                    sink.fill(place, failed)

    def put_back(self, batch: Batch[Item], lane: int, popped_s: float) -> None:
        """Queue the texts of a batch again that was popped from a lane."""
        self.batcher.put_back(((item, len(item[2])) for item in batch.items), lane, popped_s - batch.waited_s)
