"""When a way of running a model is trusted, and how many tokens fit its memory. Pure: no I/O, the clock is passed in.

    closed -- ill --> open -- its time has come --> half-open -- the probe passes --> closed
                       ^                                |
                       +--------- it fails -------------+     and waits twice as long, up to a bound

Of the ways to run a model the first that is closed serves. With none closed its texts wait: hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
_MEMORY_DOUBLES_S = 300.0

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Whether one way of running a model is trusted.

    It begins closed, or open and due at once: a way that is not loaded yet. The wait before a probe is drawn between
    half and the whole of a span that doubles with every illness, so that many workers do not probe together; a way that
    stayed closed for the longest span begins anew.

    Args:
        closed: how it begins.
        jitter: uniform in [0, 1).
    """

    def __init__(self, closed: bool, jitter: Callable[[], float]) -> None:
        self.state: State = "closed" if closed else "open"
        self.probe_at_s = -math.inf  # while it is open
        self._closed_s = -math.inf
        self._span_s = FIRST_WAIT_S
        self._jitter = jitter

    def ill(self, now_s: float) -> None:
        """The way failed at work, or in its probe."""
        if self.state == "closed" and now_s - self._closed_s >= LONGEST_WAIT_S:
            self._span_s = FIRST_WAIT_S
        self.state = "open"
        self.probe_at_s = now_s + self._span_s * (1 + self._jitter()) / 2
        self._span_s = min(2 * self._span_s, LONGEST_WAIT_S)

    def due(self, now_s: float) -> bool:
        """Whether it is time to probe."""
        return self.state == "open" and now_s >= self.probe_at_s

    def probing(self) -> None:
        """A probe has begun; exactly one of `ill` and `well` follows."""
        self.state = "half-open"

    def well(self, now_s: float) -> None:
        """The probe passed."""
        self.state, self._closed_s = "closed", now_s


def serving(breakers: Sequence[Breaker]) -> int | None:
    """Which way serves: the first closed one; None is hold."""
    return next((place for place, one in enumerate(breakers) if one.state == "closed"), None)


def to_probe(breakers: Sequence[Breaker], now_s: float) -> list[int]:
    """Which ways to probe now: those that are due and better than the one that serves."""
    better = serving(breakers)
    return [place for place, one in enumerate(breakers[:better]) if one.due(now_s)]


class TokenCap:
    """How many padded tokens of a batch fit into memory: half of what did not, and slowly more again.

    What fills the memory may be another process, so the cap doubles every five minutes until it no longer binds.
    """

    def __init__(self, max_tokens: int) -> None:
        """`max_tokens`: what a batch may have without any cap."""
        self._max_tokens = max_tokens
        self._tokens: int | None = None
        self._since_s = 0.0

    @property
    def binds(self) -> bool:
        """Whether there is a cap."""
        return self._tokens is not None

    def exceeded(self, tokens: int, now_s: float) -> None:
        """A batch of so many padded tokens did not fit."""
        self._tokens, self._since_s = max(1, min(tokens, self.allowed(now_s)) // 2), now_s

    def allowed(self, now_s: float) -> int:
        """How many tokens a batch may have now."""
        if self._tokens is None:
            return self._max_tokens
        grown = self._tokens * 2 ** min((now_s - self._since_s) / _MEMORY_DOUBLES_S, 64.0)
        if grown >= self._max_tokens:
            self._tokens = None
            return self._max_tokens
        return int(grown)
