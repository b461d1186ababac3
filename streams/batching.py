"""The micro-batcher: the texts that wait for one model, and which of them go together. Pure: no I/O, no clock.

Texts wait in one queue per lane. Where a batch is a rectangle, they wait by length: a batch starts with the oldest text
of a lane and grows to its nearest neighbours in length for as long as it stays within its budget and little of it is
padding; what waits is the look-ahead. The oldest text is in every batch of its lane, so nobody is passed over for a
better neighbour for ever. Where texts of unlike lengths share rows, they simply go in the order in which they came.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

PADDING_ALLOWED = 0.04  # of a batch's padded tokens; what is worth less than a batch's fixed cost comes on top


class Limits(NamedTuple):
    """Bounds of one batch.

    `max_tokens` counts padding where there is some; `spare_tokens` cost as much as starting one more batch.
    """

    max_events: int
    max_tokens: int
    spare_tokens: int = 0


class Batch(NamedTuple, Generic[T]):
    """Items that go to the model together; `waited_s` is how long the longest-waiting one did."""

    items: list[T]
    tokens: int
    waited_s: float


class LengthQueue(Generic[T]):
    """What waits in one lane, by length, and for each length by arrival."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[tuple[float, T]]] = {}  # by length: since when, what
        self._lengths: list[int] = []  # those of `_waiting`, sorted
        self._count = 0
        self.tokens = 0
        self.oldest_s = 0.0  # since when the oldest item waits, while there is one

    def __len__(self) -> int:
        return self._count

    def add(self, item: T, tokens: int, now_s: float) -> None:
        """Queue an item of `tokens` tokens."""
        if not self._count:
            self.oldest_s = now_s
        self._count += 1
        self.tokens += tokens
        alike = self._waiting.get(tokens)
        if alike is None:
            insort(self._lengths, tokens)
            alike = self._waiting[tokens] = deque()
        alike.append((now_s, item))

    def fill(self, batch: _Growing[T]) -> None:
        """Move items into a batch: the oldest if the batch is empty, then those nearest to its longest in length."""
        if not self._count:
            return
        around = batch.longest or self._oldest_length()
        above = bisect_left(self._lengths, around)
        below = above - 1
        while below >= 0 or above < len(self._lengths):
            up = self._lengths[above] - around if above < len(self._lengths) else None
            down = around - self._lengths[below] if below >= 0 else None
            longer = down is None or (up is not None and up <= down)
            length = self._lengths[above if longer else below]
            count = batch.room(length, len(self._waiting[length]))
            if longer:
                above = above + 1 if count else len(self._lengths)  # what is longer still would fit even less
            else:
                below = below - 1 if count else -1
            self._move(batch, length, count)
        self._forget_empty_lengths()
        if self._count:
            self.oldest_s = min(alike[0][0] for alike in self._waiting.values())

    def _forget_empty_lengths(self) -> None:
        for length in self._lengths:
            if not self._waiting[length]:
                del self._waiting[length]
        self._lengths = sorted(self._waiting)

    def _oldest_length(self) -> int:
        return min(self._waiting.items(), key=lambda waiting: waiting[1][0][0])[0]

    def _move(self, batch: _Growing[T], length: int, count: int) -> None:
        if not count:
            return
        alike = self._waiting[length]
        batch.oldest_s = min(batch.oldest_s, alike[0][0])
        batch.add([alike.popleft()[1] for _ in range(count)], length)
        self._count -= count
        self.tokens -= count * length


class ArrivalQueue(Generic[T]):
    """What waits in one lane, in the order of arrival."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, int, T]] = deque()  # since when, tokens, what
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def oldest_s(self) -> float:
        """Since when the oldest item waits, while there is one."""
        return self._waiting[0][0]

    def add(self, item: T, tokens: int, now_s: float) -> None:
        """Queue an item of `tokens` tokens."""
        self._waiting.append((now_s, tokens, item))
        self.tokens += tokens

    def fill(self, batch: _Growing[T]) -> None:
        """Move items into a batch until the next does not fit."""
        while self._waiting and batch.room(self._waiting[0][1], 1):
            since_s, tokens, item = self._waiting.popleft()
            batch.oldest_s = min(batch.oldest_s, since_s)
            batch.add([item], tokens)
            self.tokens -= tokens


class _Growing(Generic[T]):
    """A batch while it is filled."""

    def __init__(self, limits: Limits, packs: bool) -> None:
        self.limits = limits
        self._packs = packs
        self.items: list[T] = []
        self.tokens = 0
        self.longest = 0
        self.lengths = 0  # how many different ones
        self.oldest_s = math.inf  # since when its longest-waiting item did

    @property
    def cost_tokens(self) -> int:
        """What it costs so far: padding counts, where there is some."""
        return self.tokens if self._packs else self.longest * len(self.items)

    def room(self, length: int, waiting: int) -> int:
        """How many of `waiting` items of `length` tokens may join; an empty batch takes one whatever its length."""
        limits, count = self.limits, len(self.items)
        if self._packs:
            most = min(waiting, limits.max_events - count, (limits.max_tokens - self.tokens) // length)
            return max(0 if count else 1, most)
        longest = max(self.longest, length)
        most = min(waiting, limits.max_events - count, limits.max_tokens // longest - count)
        if not count:
            return max(1, most)
        if most <= 0:
            return 0
        # With k more, (count + k) * longest - tokens - k * length may be padding: bounded, this is linear in k.
        useful = longest * (1 - PADDING_ALLOWED)
        # Each further length that joins saves a batch of its own, so each may cost the spare tokens.
        debt, gain = useful * count - self.tokens - limits.spare_tokens * self.lengths, length - useful
        if gain >= 0:
            return most if debt <= most * gain else 0
        return min(most, int(debt / gain)) if debt < 0 else 0

    def add(self, items: list[T], length: int) -> None:
        self.items += items
        self.tokens += length * len(items)
        self.longest = max(self.longest, length)
        self.lengths += 1


class MicroBatcher(Generic[T]):
    """The lanes of one model. Lanes are numbered from 0, which goes first where there is a choice.

    Args:
        lanes: how many.
        packs: whether texts of unlike lengths share rows in the model, so that a batch has no padding to speak of.
    """

    def __init__(self, lanes: int, packs: bool = False) -> None:
        self._packs = packs
        self.lanes: list[LengthQueue[T] | ArrivalQueue[T]] = [
            ArrivalQueue[T]() if packs else LengthQueue[T]() for _ in range(lanes)
        ]

    def __len__(self) -> int:
        return sum(map(len, self.lanes))

    @property
    def tokens(self) -> int:
        """Of all that waits."""
        return sum(lane.tokens for lane in self.lanes)

    def add(self, items: Iterable[tuple[T, int]], lane: int, now_s: float) -> None:
        """Queue items, each with its number of tokens. One longer than the whole budget goes alone."""
        queue = self.lanes[lane]
        for item, tokens in items:
            queue.add(item, tokens, now_s)

    def pop(self, lane: int, limits: Limits, now_s: float) -> Batch[T]:
        """The next batch of a lane. Items of other lanes fill it up to `spare_tokens`: they ride almost for nothing.

        Raises:
            IndexError: nothing waits in the lane.
        """
        queue = self.lanes[lane]
        if not queue:
            raise IndexError(f"nothing waits in lane {lane}")
        if queue.tokens >= limits.max_tokens:  # more batches follow anyway: padding this one saves none of them
            limits = limits._replace(spare_tokens=0)
        batch = _Growing[T](limits, self._packs)
        queue.fill(batch)
        if batch.cost_tokens < limits.spare_tokens:
            batch.limits = limits._replace(max_tokens=min(limits.max_tokens, limits.spare_tokens))
            for other in self.lanes:
                other.fill(batch)
        return Batch(batch.items, batch.tokens, now_s - batch.oldest_s)
