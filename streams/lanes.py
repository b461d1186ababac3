"""Whose turn it is on the device: the highest lane first, but nobody is passed over more than a few times. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)

MAX_PASSED_OVER = 8


class Candidate(NamedTuple, Generic[K]):
    """A queue with something to run: who, in which lane (0 goes first), and since when its oldest item waits."""

    key: K
    lane: int
    oldest_s: float


class Turns(Generic[K]):
    """Remembers how often each queue was passed over by a higher lane."""

    def __init__(self) -> None:
        self._passed_over: dict[K, int] = {}

    def choose(self, candidates: Iterable[Candidate[K]]) -> Candidate[K] | None:
        """The next queue: the highest lane, in it the one waiting longest.

        A queue that was passed over `MAX_PASSED_OVER` times in a row goes before everything else.
        """
        waiting = list(candidates)
        if not waiting:
            return None
        starved = [one for one in waiting if self._passed_over.get(one.key, 0) >= MAX_PASSED_OVER]
        chosen = min(starved or waiting, key=lambda one: (0 if starved else one.lane, one.oldest_s))
        self._passed_over = {
            one.key: self._passed_over.get(one.key, 0) + (one.lane > chosen.lane or one in starved)
            for one in waiting
            if one.key != chosen.key
        }
        return chosen
