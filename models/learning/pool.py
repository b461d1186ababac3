"""A bounded choice of what came lately: some drawn at random, and those a model was most unsure of."""

import heapq
import random
from collections.abc import Iterator
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Of everything that was offered since it was last emptied: a uniform sample, and the most uncertain.

    The sample is Vitter's reservoir (1985, algorithm R).

    Args:
        at_random: how large the sample is at most.
        unsure: how many of the most uncertain are kept.
        seed: of the sample.
    """

    def __init__(self, at_random: int, unsure: int, seed: int = 0) -> None:
        self._most, self._most_unsure = at_random, unsure
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._numbers = count()
        self.empty()

    def empty(self) -> None:
        """Begin anew."""
        self._offered = 0
        self._sample: list[T] = []
        self._unsure: list[tuple[float, int, T]] = []  # a heap, the surest first

    def offer(self, one: T, uncertainty: float) -> None:
        """Something came."""
        self._offered += 1
        if len(self._sample) < self._most:
            self._sample.append(one)
        elif (place := self._random.randrange(self._offered)) < self._most:
            self._sample[place] = one
        entry = (uncertainty, next(self._numbers), one)
        if len(self._unsure) < self._most_unsure:
            heapq.heappush(self._unsure, entry)
        elif self._unsure and uncertainty > self._unsure[0][0]:
            heapq.heapreplace(self._unsure, entry)

    @property
    def sample(self) -> list[T]:
        """The uniform sample."""
        return list(self._sample)

    @property
    def unsure(self) -> list[T]:
        """The most uncertain, the most uncertain first."""
        return [one for _, _, one in sorted(self._unsure, key=lambda entry: entry[:2], reverse=True)]

    def __iter__(self) -> Iterator[T]:
        """The sample, and behind it what else is most uncertain."""
        known = {id(one) for one in self._sample}
        yield from self._sample
        yield from (one for one in self.unsure if id(one) not in known)
