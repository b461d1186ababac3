"""Texts to scores: micro-batches of one task through its model, on one device thread.

Every text gets an outcome: `Scored`, or the `ScoringFailed` that becomes its dead letter. A batch that fails is halved
until the text that breaks the model is alone; the rest is scored. When even a harmless text fails, it is the model
that is broken: `ModelBroken` ends the process and nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.classifier import Encoded
from streams import metrics
from streams.batching import Batch, Limits, MicroBatcher
from streams.live import Served

log = logging.getLogger(__name__)

_PROBE = ("a plain sentence",)


class ModelBroken(RuntimeError):
    """The model fails on a harmless text too."""


class Scored(NamedTuple):
    """Calibrated probabilities of one text, in the order of the labels of `served.classifier`."""

    served: Served
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ScoringFailed:
    """The model failed on this one text."""

    error: str


Outcome = Scored | ScoringFailed


class _Slots:
    """The outcomes of one submission; `done` resolves when the last slot is filled."""

    def __init__(self, count: int, done: asyncio.Future[list[Outcome]]) -> None:
        self.outcomes: list[Outcome | None] = [None] * count
        self._missing = count
        self.done = done

    def fill(self, place: int, outcome: Outcome) -> None:
        self.outcomes[place] = outcome
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result([one for one in self.outcomes if one is not None])


class _Item(NamedTuple):
    slots: _Slots
    place: int
    encoded: Encoded


class Device:
    """One thread for the model, one for the tokeniser: the loop never computes, and two batches never compete."""

    def __init__(self) -> None:
        self.model = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.tokeniser = ThreadPoolExecutor(1, thread_name_prefix="tokeniser")

    def close(self) -> None:
        """Let the threads end once they are idle."""
        self.model.shutdown(wait=False)
        self.tokeniser.shutdown(wait=False)


class Scorer:
    """Scores the texts of one task, whichever sources they come from.

    Args:
        served: the model.
        limits: of a batch.
        device: shared by all scorers of the process.
        clock: monotonic seconds.
    """

    def __init__(
        self, served: Served, limits: Limits, device: Device, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.served = served
        self._task = served.task.name
        self._batcher: MicroBatcher[_Item] = MicroBatcher(limits)
        self._device = device
        self._clock = clock
        self._arrived = asyncio.Event()
        metrics.announce_task(self._task)

    async def submit(self, texts: Sequence[str]) -> asyncio.Future[list[Outcome]]:
        """Tokenise and queue texts; the future resolves to one outcome for each, in order."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Outcome]] = loop.create_future()
        if not texts:
            done.set_result([])
            return done
        encoded = await loop.run_in_executor(self._device.tokeniser, self._encode, texts)
        slots = _Slots(len(texts), done)
        now_s = self._clock()
        for place, one in enumerate(encoded):
            if isinstance(one, ScoringFailed):
                slots.fill(place, one)
                continue
            metrics.TEXTS_CUT.labels(self._task).inc(one.cut)
            self._batcher.add(_Item(slots, place, one), len(one.ids), now_s)
        self._arrived.set()
        return done

    def _encode(self, texts: Sequence[str]) -> list[Encoded | ScoringFailed]:
        """On the tokeniser's thread; when it fails on some texts, the others are read one by one."""
        try:
            return list(self.served.classifier.encode(texts))
        except Exception as error:
            if len(texts) > 1:
                return [one for text in texts for one in self._encode([text])]
            return [ScoringFailed(f"the tokeniser failed: {type(error).__name__}: {error}"[:500])]

    async def run(self) -> None:
        """Score batches as they fall due, one at a time, until cancelled."""
        while True:
            due_in_s = self._batcher.due_in_s(self._clock())
            if due_in_s == 0:
                await self._score(self._batcher.pop(self._clock()))
                continue
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), due_in_s)
            except TimeoutError:
                pass

    async def _score(self, batch: Batch[_Item]) -> None:
        task = self._task
        metrics.BATCH_EVENTS.labels(task).observe(len(batch.items))
        metrics.BATCH_TOKENS.labels(task).observe(batch.padded_tokens)
        metrics.REAL_TOKENS.labels(task).inc(batch.tokens)
        metrics.PADDED_TOKENS.labels(task).inc(batch.padded_tokens)
        metrics.PADDING_RATIO.labels(task).set(batch.padded_tokens / max(1, batch.tokens))
        metrics.QUEUE_WAIT_S.labels(task).observe(batch.waited_s)
        work = asyncio.get_running_loop().run_in_executor(self._device.model, self._outcomes, batch.items)
        for item, outcome in zip(batch.items, await work, strict=True):
            item.slots.fill(item.place, outcome)

    def _outcomes(self, items: Sequence[_Item]) -> list[Outcome]:
        """On the model thread: score, halving on failure (at most 2n - 1 runs for n items, log2 n deep)."""
        served, started_s = self.served, self._clock()
        try:
            probabilities = served.classifier.run([item.encoded for item in items])
            if not np.isfinite(probabilities).all():
                raise FloatingPointError("the model's scores are not finite")
        except Exception as error:
            metrics.MODEL_FAILURES.labels(self._task).inc()
            log.warning("task %s: the model failed on a batch of %d: %s", self._task, len(items), error)
            if len(items) > 1:
                middle = len(items) // 2
                return self._outcomes(items[:middle]) + self._outcomes(items[middle:])
            self._probe(error)
            return [ScoringFailed(f"{type(error).__name__}: {error}"[:500])]
        metrics.INFERENCE_S.labels(self._task).observe(self._clock() - started_s)
        return [Scored(served, row) for row in probabilities]

    def _probe(self, error: Exception) -> None:
        try:
            self.served.classifier.run(self.served.classifier.encode(_PROBE))
        except Exception as again:
            raise ModelBroken(f"release {self.served.release} fails on a harmless text too: {again}") from error
