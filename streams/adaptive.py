"""How large a batch may be and whether to wait for more, learned from what batches cost and how often texts arrive.

A batch of n padded tokens takes about a + b * n seconds. From that follow, for a latency target:

* the token budget: a batch may take a third of the target (an event waits for the batch before its own, then for its
  own; the last third is for tokenising, publishing and the broker);
* the spare tokens a / b: so much padding costs no more than one more batch would;
* whether to wait: one more event delays the n that wait by the time to the next arrival, and saves that one a batch's
  fixed cost a. So waiting pays while n < a * arrivals per second: never for long, as it adds up to about a.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from streams.batching import Limits

_MEMORY = 200  # batches after which an observation counts a third
_SHARE = 1 / 3
_ARRIVALS_MEMORY_S = 1.0


class Bounds(NamedTuple):
    """What adaptation may not leave. `max_wait_s` bounds the waiting for more."""

    max_events: int
    min_tokens: int
    max_tokens: int
    max_wait_s: float
    target_p99_s: float


class CostModel:
    """Least squares that forgets: seconds = `fixed_s` + `per_token_s` * padded tokens, both kept positive.

    Args:
        measured: (padded tokens, seconds) of a few batches at the start, of different sizes; they are never forgotten,
            so that a stream whose batches are all alike still tells a from b. They count as if they were measured at
            the speed the machine has now: it may have been busy at the start, or be busy since.
    """

    def __init__(self, measured: Iterable[tuple[int, float]]) -> None:
        self._kept = tuple(measured)
        if len({tokens for tokens, _ in self._kept}) < 2:
            raise ValueError("the cost of at least two sizes must be measured first")
        self._weight = self._x = self._y = self._xx = self._xy = 0.0
        self._at_first_s = 0.0  # what the batches would have taken at the speed of the start
        self.fixed_s, self.per_token_s = 0.0, 0.0
        self._solve()
        self._first_fixed_s, self._first_per_token_s = self.fixed_s, self.per_token_s

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from one batch. An outlier ten times as slow as expected counts as just that."""
        seconds = min(seconds, 10 * self.expected_s(tokens))
        keep = 1 - 1 / _MEMORY
        self._weight = self._weight * keep + 1
        self._x = self._x * keep + tokens
        self._y = self._y * keep + seconds
        self._xx = self._xx * keep + tokens * tokens
        self._xy = self._xy * keep + tokens * seconds
        self._at_first_s = self._at_first_s * keep + self._first_fixed_s + self._first_per_token_s * tokens
        self._solve()

    def expected_s(self, tokens: int) -> float:
        """What a batch of so many padded tokens should take."""
        return self.fixed_s + self.per_token_s * tokens

    @property
    def slowdown(self) -> float:
        """How many times as long as at the start batches take now."""
        return self._y / self._at_first_s if self._weight else 1.0

    def _solve(self) -> None:
        n, x, y, xx, xy = self._weight, self._x, self._y, self._xx, self._xy
        slower = self.slowdown
        for tokens, at_first_s in self._kept:
            seconds = at_first_s * slower
            n, x, y, xx, xy = n + 1, x + tokens, y + seconds, xx + tokens * tokens, xy + tokens * seconds
        spread = n * xx - x * x
        slope = (n * xy - x * y) / spread if spread > 0 else 0.0
        self.per_token_s = max(slope, 0.01 * y / x, 1e-9)
        self.fixed_s = max((y - self.per_token_s * x) / n, 1e-6)


class Pace:
    """Batch limits and patience for one model."""

    def __init__(self, bounds: Bounds, cost: CostModel) -> None:
        self.cost = cost
        self._bounds = bounds
        self._per_s = 0.0
        self._last_s = -math.inf
        self._most_tokens = bounds.max_tokens
        self.limits = self._learned()

    def arrived(self, count: int, now_s: float) -> None:
        """Texts arrived: keeps an average over about a second."""
        passed_s = now_s - self._last_s
        self._per_s = self._per_s * math.exp(-passed_s / _ARRIVALS_MEMORY_S) + count / _ARRIVALS_MEMORY_S
        self._last_s = now_s

    def ran(self, padded_tokens: int, seconds: float) -> None:
        """A batch took so long."""
        self.cost.observe(padded_tokens, seconds)
        self.limits = self._learned()

    def bound(self, tokens: int) -> None:
        """Let no batch have more padded tokens than these, even below `Bounds.min_tokens`: memory holds no more."""
        self._most_tokens = tokens
        self.limits = self._learned()

    @property
    def late(self) -> bool:
        """Whether even the smallest batch takes longer than its share of the target."""
        return self.cost.expected_s(self._bounds.min_tokens) > self._bounds.target_p99_s * _SHARE

    def fills(self, waiting: int, tokens: int) -> bool:
        """Whether so many texts of so many tokens together leave no room for more in one batch."""
        return waiting >= self.limits.max_events or tokens >= self.limits.max_tokens

    def patience_s(self, waiting: int, tokens: int) -> float:
        """How long the oldest of `waiting` texts should wait for more before an idle device takes them."""
        if waiting >= self.cost.fixed_s * self._per_s or self.fills(waiting, tokens):
            return 0.0
        return min(self.cost.fixed_s, self._bounds.max_wait_s)

    def _learned(self) -> Limits:
        bounds, cost = self._bounds, self.cost
        affordable = (bounds.target_p99_s * _SHARE - cost.fixed_s) / cost.per_token_s
        budget = int(min(max(affordable, bounds.min_tokens), bounds.max_tokens, self._most_tokens))
        return Limits(bounds.max_events, budget, min(int(cost.fixed_s / cost.per_token_s), budget))
