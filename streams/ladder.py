"""The ways to run one model, best first, and which of them serves: what was chosen, the reference on the CPU, or none.

    chosen ---- ill ----> hold -- the reference is loaded and passes --> reference on the CPU -- ill --> hold
      ^                    |                                                  |
      +-- a probe passes --+--------------------------------------------------+

What waits meanwhile goes on waiting: nothing is lost, and nothing becomes a dead letter for a model's illness. Every
change is logged once. All is called on the event loop, but for `Way.probe`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from streams import metrics
from streams.adaptive import Bounds, CostModel, Pace
from streams.breaker import Breaker, TokenCap, serving, to_probe
from streams.live import Loaded
from streams.trial import Ill, Ran, Runner, told

log = logging.getLogger(__name__)

_SLOW, _SLOW_NO_MORE = 5.0, 3.0  # times what batches took at the start
_SLOW_BATCHES = 20  # fewer may have met with something else


class Way:
    """One way to run a model: in memory, or to be loaded by the probe that finds out whether it works.

    Args:
        name: "chosen" or "reference".
        load: brings the model with what its batches cost.
        loaded: it, if it is in memory.
        bounds: of its batches.
        clock: monotonic seconds.
        jitter: uniform in [0, 1).
    """

    runner: Runner
    pace: Pace
    cap: TokenCap

    def __init__(
        self,
        name: str,
        load: Callable[[], Loaded],
        loaded: Loaded | None,
        bounds: Bounds,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self.name = name
        self.breaker = Breaker(loaded is not None, jitter)
        self.loaded: Loaded | None = None
        self.problem = ""  # the last one
        self.batches = 0  # learned from
        self._load = load
        self._bounds = bounds
        self._clock = clock
        if loaded is not None:
            self._take(loaded)

    def _take(self, loaded: Loaded) -> None:
        self.runner = Runner(loaded.model, [one.name for one in loaded.served], self._clock)
        self.pace = Pace(self._bounds, CostModel(loaded.costs))
        self.cap = TokenCap(self._bounds.max_tokens)
        self.loaded = loaded

    def __str__(self) -> str:
        return f"the {self.name} runtime" + (f" ({self.loaded.model.runtime})" if self.loaded else "")

    def probe(self) -> None:
        """On a thread: load the model if need be, and score a harmless text. Raises whatever is wrong."""
        if self.loaded is None:
            self._take(self._load())
        self.runner.check()

    def learn(self, padded_tokens: int, ran: Ran) -> None:
        """From a batch: what batches cost, and what fits into memory."""
        if ran.too_many_tokens is not None:
            self.cap.exceeded(ran.too_many_tokens, self._clock())
        if self.cap.binds:
            self.pace.bound(self.cap.allowed(self._clock()))
        if not ran.failed:  # else the seconds are those of several runs
            self.batches += 1
            self.pace.ran(padded_tokens, ran.seconds)


class Ladder:
    """Which way serves.

    Args:
        loaded: the model as it was chosen, and how its reference is loaded, if it has one.
        bounds: of its batches.
        clock: monotonic seconds.
        jitter: uniform in [0, 1).
    """

    def __init__(
        self,
        loaded: Loaded,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = loaded.name
        self.metrics = metrics.LadderMetrics(self.name)
        self._clock = clock
        self._chosen = Way("chosen", lambda: loaded, loaded, bounds, clock, jitter)
        self._new_reference = loaded.reference and partial(
            Way, "reference", loaded.reference, None, bounds, clock, jitter
        )
        self._ways = self._whole()
        self.way = self._chosen  # what serves, or served last
        self.holding = False
        self._since_s = clock()
        self._held_since_s: float | None = None  # nothing was scored since
        self._slow = False

    def _whole(self) -> list[Way]:
        """With the reference not loaded: it takes memory only while it is needed."""
        return [self._chosen, self._new_reference()] if self._new_reference else [self._chosen]

    @property
    def state(self) -> metrics.ModelState:
        """Whether what was chosen serves, the reference, or none."""
        if self.holding:
            return "holding"
        return "chosen" if self.way is self._chosen else "reference"

    @property
    def slots(self) -> int:
        """How many batches may run at once."""
        return self.way.runner.model.slots

    def ill(self, way: Way, error: Ill) -> None:
        """A batch found a way ill; others that ran beside it may say so too."""
        if way.breaker.state == "closed":
            way.problem = str(error)
            way.breaker.ill(self._clock())
            self.metrics.ill(way.name)
            self._move(f"{way} {error}")

    def to_probe(self) -> list[Way]:
        """The ways whose probe is to begin now; `probed` must be called for each."""
        due = [self._ways[place] for place in to_probe([way.breaker for way in self._ways], self._clock())]
        for way in due:
            way.breaker.probing()
        return due

    def probed(self, way: Way, error: BaseException | None) -> None:
        """A probe has ended, with what it raised."""
        if way not in self._ways:  # a reference that is no longer needed
            return
        self.metrics.probed(error is None)
        if error is None:
            way.breaker.well(self._clock())
            if way is self._chosen:
                self._ways = self._whole()
            self._move(f"{way} passes its probe")
            return
        problem = str(error) if isinstance(error, Ill) else f"cannot be loaded: {told(error)}"
        if problem != way.problem:
            log.warning("%s: %s %s; it is tried again and again", self.name, way, problem)
        way.problem = problem
        way.breaker.ill(self._clock())

    def progressed(self) -> None:
        """A batch was scored."""
        self._held_since_s = None

    def held_s(self) -> float:
        """For how long nothing could be scored; 0 while some way serves."""
        return self._clock() - self._held_since_s if self.holding and self._held_since_s is not None else 0.0

    def watch(self) -> None:
        """Say when the model became too slow for its latency target, and when it no longer is."""
        pace = self.way.pace
        slowdown, limit = pace.cost.slowdown, _SLOW_NO_MORE if self._slow else _SLOW
        slow = slowdown >= limit and pace.late and self.way.batches >= _SLOW_BATCHES
        if slow != self._slow:
            self._slow, change = slow, "slow" if slow else "fast enough again"
            log.warning("%s: the model is %s: batches take %.1f times as long as at first", self.name, change, slowdown)
        self.metrics.slowdown(slowdown, slow)

    def _move(self, why: str) -> None:
        """Look which way serves now."""
        place = serving([way.breaker for way in self._ways])
        before, held, now_s = self.way, self.holding, self._clock()
        self.holding = place is None
        if place is not None:
            self.way = self._ways[place]
        if (self.way, self.holding) == (before, held):
            return
        lasted_s, self._since_s = now_s - self._since_s, now_s
        if self.holding:
            if self._held_since_s is None:
                self._held_since_s = now_s
            log.error("%s: %s; its texts are held until a probe passes, none is lost", self.name, why)
        else:
            level = logging.INFO if self.way is self._chosen else logging.WARNING
            log.log(level, "%s: %s and serves, after %.1f s", self.name, why, lasted_s)
        self.metrics.moved(self.state, before.loaded, None if self.holding else self.way.loaded)

    def report(self) -> dict[str, Any]:
        """What `/ready` says of the model."""
        problems = {way.name: way.problem for way in self._ways if way.problem and way.breaker.state != "closed"}
        return {
            "state": self.state,
            "since_s": round(self._clock() - self._since_s, 1),
            "runtime": None if self.holding else self.way.runner.model.runtime,
            "slow": self._slow,
            "slowdown": round(self.way.pace.cost.slowdown, 2),
            "budget_tokens": self.way.pace.limits.max_tokens,
            "problems": problems,
        }
