"""The device's threads, and what runs on them next: whenever one is free, the batch whose turn it is.

While batches run, the next texts are tokenised on a thread of their own and the outputs of the last are published by
the loop. Work that is certain is handed over one batch ahead, so that no model thread waits for the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from streams.batching import Batch
from streams.lanes import Candidate, Turns
from streams.scoring import Item, Outcome, Scorer

_Key = tuple[int, int]  # scorer, lane
_Ran = tuple[list[Outcome], float]


class Device:
    """Runs the batches of all scorers of a process.

    Args:
        scorers: they share the device.
        slots: how many batches may run at once.
        clock: monotonic seconds.
    """

    def __init__(self, scorers: Sequence[Scorer], slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._scorers = scorers
        self._slots = slots
        self._clock = clock
        self._model = ThreadPoolExecutor(slots, thread_name_prefix="model")
        self._tokeniser = ThreadPoolExecutor(1, thread_name_prefix="tokeniser")
        self._turns: Turns[_Key] = Turns()
        self._running = 0
        self.batches_run = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for scorer in scorers:
            scorer.attach(self._tokeniser, self._dispatch)

    async def run(self) -> None:
        """Nothing to do but to fail when a model is broken: batches start as texts arrive and others end."""
        await self._failed

    def close(self) -> None:
        """Start nothing more, and let the threads end once they are idle."""
        self._failed.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        self._model.shutdown(wait=False)
        self._tokeniser.shutdown(wait=False)

    def _dispatch(self) -> None:
        """Start what is due, as far as there is room; then sleep until more arrives, ends or falls due."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while self._running <= self._slots and not self._failed.done():
            if self._running == self._slots and not self._plenty():
                return
            now_s = self._clock()
            turn = self._turns.choose(self._candidates(now_s))
            if turn is None:
                self._sleep(now_s)
                return
            self._start(*turn.key, now_s)

    def _candidates(self, now_s: float) -> Iterator[Candidate[_Key]]:
        """The lanes with a batch to run now."""
        for index, scorer in enumerate(self._scorers):
            patience_s = scorer.patience_s()
            for lane, queue in enumerate(scorer.batcher.lanes):
                if len(queue) and now_s - queue.oldest_s >= patience_s:
                    yield Candidate((index, lane), lane, queue.oldest_s)

    def _plenty(self) -> bool:
        """Whether a whole batch waits: then it may be handed over before a thread is free."""
        return any(scorer.pace.fills(len(scorer.batcher), scorer.batcher.tokens) for scorer in self._scorers)

    def _sleep(self, now_s: float) -> None:
        due_s = [
            queue.oldest_s + scorer.patience_s() - now_s
            for scorer in self._scorers
            for queue in scorer.batcher.lanes
            if len(queue)
        ]
        if due_s:
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, min(due_s)), self._dispatch)

    def _start(self, index: int, lane: int, now_s: float) -> None:
        scorer = self._scorers[index]
        batch = scorer.batcher.pop(lane, scorer.limits(self._slots), now_s)
        self._running += 1
        work = asyncio.get_running_loop().run_in_executor(self._model, scorer.compute, batch)
        work.add_done_callback(partial(self._ended, scorer, batch))

    def _ended(self, scorer: Scorer, batch: Batch[Item], work: asyncio.Future[_Ran]) -> None:
        self._running -= 1
        self.batches_run += 1
        if work.cancelled() or self._failed.done():
            return
        try:
            ran = work.result()
            self._dispatch()  # first the next batch, then what this one brought
            scorer.deliver(batch, *ran)
        except Exception as error:  # nobody awaits a callback: its texts would wait for ever
            self._failed.set_exception(error)
