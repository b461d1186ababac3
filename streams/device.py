"""The device's threads, and what runs on them next: whenever one is free, the batch whose turn it is.

While batches run, the next texts are tokenised on a thread of their own and the outputs of the last are published by
the loop. Work that is certain is handed over one batch ahead, so that no model thread waits for the loop.

A batch that finds its model ill is put back; probes run on threads of their own. What cannot be cured here, a model
that hangs or that nothing can run for long, ends the process: the supervisor starts another, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any

from streams.batching import Batch
from streams.heap import give_all_back
from streams.ladder import Way
from streams.lanes import Candidate, Turns
from streams.scoring import Item, Scorer
from streams.trial import Ill, Ran

_Key = tuple[int, int]  # scorer, lane

_HANG_TIMES, _HANG_LEAST_S = 100.0, 20.0  # what a batch should take, and what is always granted


class ModelHung(RuntimeError):
    """A run of a model does not come back, and a thread cannot be ended."""


class ModelBroken(RuntimeError):
    """Nothing could run a model for too long."""


@dataclass(slots=True)
class _Run:
    """A batch on its way through a model thread; `ticks` counts only those of a loop that itself runs."""

    scorer: Scorer
    way: Way
    lane: int
    batch: Batch[Item]
    popped_s: float
    ticks: int = 0


def _free(last: list[Scorer]) -> None:
    last.clear()
    give_all_back()


class Device:
    """Runs the batches of all scorers of a process.

    Args:
        scorers: they share the device.
        slots: how many batches may run at once.
        clock: monotonic seconds.
        hang_s: a run that takes longer hangs, whatever its size.
        hold_limit_s: when nothing can run a model for so long, the process should end.
        tick_s: how often to look after all this.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        slots: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        hang_s: float = 60.0,
        hold_limit_s: float = 900.0,
        tick_s: float = 0.5,
    ) -> None:
        self._scorers: dict[int, Scorer] = {}
        self._numbers = count()
        self._least_slots = self._slots = slots
        self._clock = clock
        self._hang_s, self._hold_limit_s, self._tick_s = hang_s, hold_limit_s, tick_s
        self._model = ThreadPoolExecutor(slots, thread_name_prefix="model")
        self._tokeniser = ThreadPoolExecutor(1, thread_name_prefix="tokeniser")
        # If one hangs, others go on; while releases are swapped there are more scorers than now.
        self._probes = ThreadPoolExecutor(4 * len(scorers), thread_name_prefix="probe")
        self._turns: Turns[_Key] = Turns()
        self._runs: dict[asyncio.Future[Ran], _Run] = {}  # in the order of their start
        self.batches_run = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for scorer in scorers:
            self.add(scorer)

    def add(self, scorer: Scorer) -> None:
        """Let one more scorer share the device."""
        self._scorers[next(self._numbers)] = scorer
        scorer.attach(self._tokeniser, self._dispatch)
        self._follow()

    def retire(self, scorer: Scorer) -> None:
        """Let a scorer go as soon as no slice counts on it; until then its texts are scored as ever."""
        scorer.retired = True

    async def run(self) -> None:
        """Watch over runs and models, and fail when one of them is past help. Batches start as texts arrive and end.

        Raises:
            ModelHung: a run does not come back.
            ModelBroken: a model's texts were held for `hold_limit_s`.
        """
        while not self._failed.done():
            await asyncio.wait([self._failed], timeout=self._tick_s)
            self._tick()
        self._failed.result()

    @property
    def holding(self) -> bool:
        """Whether the texts of some model wait because nothing can run it."""
        return any(scorer.ladder.holding for scorer in self._serving())

    def _serving(self) -> Iterator[Scorer]:
        """Those without which events wait."""
        return (one for one in self._scorers.values() if not one.retired and not one.loaded.challenges)

    def report(self) -> dict[str, dict[str, Any]]:
        """What `/ready` says of each model."""
        return {scorer.name: scorer.ladder.report() for scorer in self._scorers.values() if not scorer.retired}

    def close(self) -> None:
        """Start nothing more, and let the threads end once they are idle."""
        self._failed.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        for threads in (self._model, self._tokeniser, self._probes):
            threads.shutdown(wait=False)

    # ---- what runs next

    def _dispatch(self) -> None:
        """Start what is due, as far as there is room; then sleep until more arrives, ends or falls due."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while len(self._runs) <= self._slots and not self._failed.done():
            if len(self._runs) == self._slots and not self._plenty():
                return
            now_s = self._clock()
            turn = self._turns.choose(self._candidates(now_s))
            if turn is None:
                self._sleep(now_s)
                return
            self._start(*turn.key, now_s)

    def _candidates(self, now_s: float) -> Iterator[Candidate[_Key]]:
        """The lanes with a batch to run now."""
        for index, scorer in self._scorers.items():
            if scorer.ladder.holding:
                continue
            patience_s = scorer.patience_s()
            for lane, queue in enumerate(scorer.batcher.lanes):
                if len(queue) and now_s - queue.oldest_s >= patience_s:
                    yield Candidate((index, lane), lane, queue.oldest_s)

    def _plenty(self) -> bool:
        """Whether a whole batch waits: then it may be handed over before a thread is free."""
        return any(
            scorer.pace.fills(len(scorer.batcher), scorer.batcher.tokens)
            for scorer in self._scorers.values()
            if not scorer.ladder.holding
        )

    def _sleep(self, now_s: float) -> None:
        due_s = [
            queue.oldest_s + scorer.patience_s() - now_s
            for scorer in self._scorers.values()
            if not scorer.ladder.holding
            for queue in scorer.batcher.lanes
            if len(queue)
        ]
        if due_s:
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, min(due_s)), self._dispatch)

    def _start(self, index: int, lane: int, now_s: float) -> None:
        scorer = self._scorers[index]
        way = scorer.ladder.way
        batch = scorer.batcher.pop(lane, scorer.limits(self._slots), now_s)
        work = asyncio.get_running_loop().run_in_executor(self._model, scorer.compute, way, batch)
        self._runs[work] = _Run(scorer, way, lane, batch, now_s)
        work.add_done_callback(self._ended)

    def _ended(self, work: asyncio.Future[Ran]) -> None:
        run = self._runs.pop(work)
        if work.cancelled() or self._failed.done():
            return
        try:
            ran = work.result()
            self.batches_run += 1
            self._dispatch()  # first the next batch, then what this one brought
            run.scorer.deliver(run.way, run.batch, ran)
        except Ill as error:
            run.scorer.put_back(run.batch, run.lane, run.popped_s)
            run.scorer.ladder.ill(run.way, error)
            self._care(run.scorer)
        except Exception as error:  # nobody awaits a callback: its texts would wait for ever
            self._failed.set_exception(error)

    # ---- what became of the models

    def _tick(self) -> None:
        for run in islice(self._runs.values(), self._slots):  # what is handed over ahead does not run yet
            run.ticks += 1
            granted_s = self._granted_s(run)
            if run.ticks * self._tick_s > granted_s:
                texts = len(run.batch.items)
                self._fail(ModelHung(f"{run.scorer.name}: {run.way} hangs: {texts} texts for {granted_s:.0f} s"))
        self._let_go()
        for scorer in self._scorers.values():
            scorer.ladder.watch()
            self._care(scorer)
            if scorer.retired and scorer.ladder.holding:
                scorer.give_up()
        for scorer in self._serving():
            if scorer.ladder.held_s() > self._hold_limit_s:
                limit = f"models.hold_limit_s = {self._hold_limit_s:g}"
                self._fail(ModelBroken(f"{scorer.name}: nothing could run the model for {limit}"))

    def _let_go(self) -> None:
        """Of what is retired and done. On a thread: giving a model's memory back takes a while."""
        for number in [number for number, one in self._scorers.items() if one.retired and not one.users]:
            self._probes.submit(_free, [self._scorers.pop(number)])

    def _granted_s(self, run: _Run) -> float:
        """How long a run may take: far longer than what it costs, and never longer than the limit."""
        expected_s = run.way.pace.cost.expected_s(run.batch.tokens)
        return min(self._hang_s, max(_HANG_LEAST_S, _HANG_TIMES * expected_s))

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)

    def _care(self, scorer: Scorer) -> None:
        """Begin the probes that are due, and run what can run."""
        for way in scorer.ladder.to_probe():
            probe = asyncio.get_running_loop().run_in_executor(self._probes, way.probe)
            probe.add_done_callback(partial(self._probed, scorer, way))
        self._follow()

    def _probed(self, scorer: Scorer, way: Way, probe: asyncio.Future[None]) -> None:
        if probe.cancelled() or self._failed.done():
            return
        scorer.ladder.probed(way, probe.exception())
        self._follow()

    def _follow(self) -> None:
        """As many threads as what serves now can use, and on with the texts that wait."""
        slots = max(self._least_slots, *(scorer.ladder.slots for scorer in self._scorers.values()))
        if slots != self._slots:
            self._model.shutdown(wait=False)  # it ends what it was given
            self._slots, self._model = slots, ThreadPoolExecutor(slots, thread_name_prefix="model")
        self._dispatch()
