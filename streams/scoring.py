"""Texts to scores: what is submitted is tokenised, waits in its lane, and comes back as one outcome for every text.

An outcome is `Scored`, or the `ScoringFailed` that becomes the event's dead letter. A batch that fails is halved until
the text that breaks the model is alone; the rest is scored. When even a harmless text fails, it is the model that is
broken: `ModelBroken` ends the process and nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import repeat
from typing import Protocol

import numpy as np

from models.classifier import Encoded
from models.windows import merge
from streams import metrics
from streams.adaptive import Bounds, CostModel, Pace
from streams.batching import Batch, Limits, MicroBatcher
from streams.live import Loaded, Served
from streams.settings import LANES

log = logging.getLogger(__name__)

_PROBE = "a plain sentence"

Scores = tuple[int, list[float]]  # the column of the best label, and the probability of each, rounded to 6 digits


class ModelBroken(RuntimeError):
    """The model fails on a harmless text too."""


@dataclass(frozen=True, slots=True)
class ScoringFailed:
    """The model of these tasks failed on this one text, as often as it was tried alone."""

    task: str
    error: str
    attempts: int
    release: str


# Per text: the model, and its scores by each of `loaded.served`. Bare tuples: this is made for every event.
Scored = tuple[Loaded, tuple[Scores, ...]]
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
        probabilities = np.array([row for _, row in rows], np.float32)
        alerting = [rule.column for rule in served.alert_rules]
        return _rounded(merge(probabilities, self._lengths, served.task.long_text, alerting)[None])[0]


def _rounded(probabilities: np.typing.NDArray[np.float32]) -> list[Scores]:
    """Rounded first: the best label and every threshold are then judged by what is published."""
    rounded = np.round(probabilities.astype(np.float64), 6)
    return list(zip(rounded.argmax(axis=1).tolist(), rounded.tolist(), strict=True))


class Scorer:
    """Scores the texts of one model, whichever sources they come from.

    Args:
        loaded: the model.
        bounds: what the batches may be.
        clock: monotonic seconds.
    """

    def __init__(self, loaded: Loaded, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self.loaded = loaded
        self.name = loaded.name
        self.batcher: MicroBatcher[Item] = MicroBatcher(len(LANES), loaded.model.packs)
        self.pace = Pace(bounds, CostModel(loaded.costs))
        self._clock = clock
        self._tokeniser: Executor | None = None
        self._queued: Callable[[], None] = lambda: None
        self.metrics = metrics.ScorerMetrics(self.name)

    def serves(self, tasks: Collection[str]) -> bool:
        """Whether the model has a head for any of these tasks."""
        return any(served.name in tasks for served in self.loaded.served)

    def attach(self, tokeniser: Executor, queued: Callable[[], None]) -> None:
        """Say on which thread texts are tokenised, and whom to tell that some wait."""
        self._tokeniser, self._queued = tokeniser, queued

    def patience_s(self) -> float:
        """How long the oldest of what waits should wait for more; see `Pace`."""
        return self.pace.patience_s(len(self.batcher), self.batcher.tokens)

    def limits(self, slots: int) -> Limits:
        """Of the next batch. Where small batches cost no more a token than large ones, all slots share what waits."""
        limits = self.pace.limits
        if not self.loaded.model.packs:
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

    def _encode(self, texts: Sequence[str]) -> list[Encoded | ScoringFailed]:
        """On the tokeniser's thread; when it fails on some texts, the others are read one by one."""
        try:
            return list(self.loaded.model.encode(texts))
        except Exception as error:
            if len(texts) > 1:
                return [one for text in texts for one in self._encode([text])]
            why = f"the tokeniser failed: {type(error).__name__}: {error}"[:500]
            return [ScoringFailed(self.name, why, 1, self.loaded.model.release)]

    def _items(self, encoded: Sequence[Encoded | ScoringFailed], slots: _Slots) -> Iterable[tuple[Item, int]]:
        for place, one in enumerate(encoded):
            if isinstance(one, ScoringFailed):
                slots.fill(place, one)
                continue
            if len(one.windows) == 1:
                ids = one.windows[0]
                yield (slots, place, ids), len(ids)
                continue
            self.metrics.long_text(len(one.windows), one.cut)
            sink = _Windows(slots, place, one.windows)
            for number, ids in enumerate(one.windows):
                yield (sink, number, ids), len(ids)

    def compute(self, batch: Batch[Item]) -> tuple[list[Outcome], float]:
        """On a model thread: one outcome for each item, and how many seconds the model took."""
        started_s = self._clock()
        outcomes = self._outcomes(batch.items)
        return outcomes, self._clock() - started_s

    def deliver(self, batch: Batch[Item], outcomes: Sequence[Outcome], seconds: float) -> None:
        """Back on the loop: fill the slots, and learn what the batch cost."""
        padded_tokens = self.loaded.model.padded_tokens([len(ids) for _, _, ids in batch.items])
        self.pace.ran(padded_tokens, seconds)
        self.metrics.ran(batch, padded_tokens, seconds)
        self.metrics.learned(self.pace)
        for (sink, place, _), outcome in zip(batch.items, outcomes, strict=True):
            sink.fill(place, outcome)

    def _outcomes(self, items: Sequence[Item]) -> list[Outcome]:
        """Score, halving on failure (at most 2n - 1 runs for n items, log2 n deep)."""
        try:
            return self._scored(items)
        except Exception as error:
            self.metrics.failed()
            if len(items) == 1:
                return [self._second_chance(items, error)]
            log.debug("%s: the model failed on a batch of %d: %s", self.name, len(items), error)
        middle = len(items) // 2
        return self._outcomes(items[:middle]) + self._outcomes(items[middle:])

    def _second_chance(self, items: Sequence[Item], error: Exception) -> Outcome:
        """One text failed: if a harmless one does too it is the model, else the text, unless it was a passing failure.

        Raises:
            ModelBroken: it is the model.
        """
        model = self.loaded.model
        try:
            self._run(model.encode([_PROBE])[0].windows)
        except Exception as again:
            raise ModelBroken(f"release {model.release} fails on a harmless text too: {again}") from error
        try:
            return self._scored(items)[0]
        except Exception as again:
            log.warning("%s: the model failed on one text, twice: %s", self.name, again)
            return ScoringFailed(self.name, f"{type(again).__name__}: {again}"[:500], 2, model.release)

    def _scored(self, items: Sequence[Item]) -> list[Outcome]:
        scores = zip(*(_rounded(one) for one in self._run([ids for _, _, ids in items])), strict=True)
        return list(zip(repeat(self.loaded), scores))  # the other side never ends

    def _run(self, windows: Sequence[Sequence[int]]) -> list[np.typing.NDArray[np.float32]]:
        """Probabilities [windows, labels] by each of `loaded.served`."""
        by_task = self.loaded.model.run(windows)
        found = [by_task[one.name] for one in self.loaded.served]
        if not all(np.isfinite(one).all() for one in found):
            raise FloatingPointError("the model's scores are not finite")
        return found
