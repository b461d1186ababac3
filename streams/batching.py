"""The micro-batcher: what waits, and when it goes. Pure: no I/O, no clock of its own.

A batch closes on the first of: the padded-token budget (longest x count), the count, the deadline of its first item.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one batch. `max_tokens` counts padding: the longest item's tokens times the number of items."""

    max_events: int
    max_tokens: int
    max_wait_s: float


class _Waiting(NamedTuple, Generic[T]):
    item: T
    tokens: int
    since_s: float


class Batch(NamedTuple, Generic[T]):
    """Items that go to the model together, in the order they were added."""

    items: list[T]
    tokens: int
    padded_tokens: int
    waited_s: float


class MicroBatcher(Generic[T]):
    """First in, first out. The items of the next batch are counted as they are added, so `due` costs nothing."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: deque[_Waiting[T]] = deque()
        self._next_count = 0  # how many of the waiting items the next batch takes
        self._next_longest = 0
        self._next_is_full = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: T, tokens: int, now_s: float) -> None:
        """Queue an item of `tokens` tokens. One longer than the whole budget goes alone."""
        self._waiting.append(_Waiting(item, tokens, now_s))
        self._extend(tokens)

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until a batch must go: 0 when one is full or late, None when nothing waits."""
        if not self._waiting:
            return None
        if self._next_is_full:
            return 0.0
        return max(0.0, self._waiting[0].since_s + self._limits.max_wait_s - now_s)

    def pop(self, now_s: float) -> Batch[T]:
        """Take the next batch, full or not.

        Raises:
            IndexError: nothing waits.
        """
        waited_s = now_s - self._waiting[0].since_s
        taken = [self._waiting.popleft() for _ in range(self._next_count)]
        tokens, longest = sum(one.tokens for one in taken), self._next_longest
        self._count_again()
        return Batch([one.item for one in taken], tokens, longest * len(taken), waited_s)

    def _count_again(self) -> None:
        self._next_count, self._next_longest, self._next_is_full = 0, 0, False
        for one in self._waiting:
            self._extend(one.tokens)
            if self._next_is_full:
                return

    def _extend(self, tokens: int) -> None:
        """Count one more item into the next batch, unless it is full."""
        if self._next_is_full:
            return
        longest = max(self._next_longest, tokens)
        count = self._next_count + 1
        if self._next_count and longest * count > self._limits.max_tokens:
            self._next_is_full = True
            return
        self._next_count, self._next_longest = count, longest
        self._next_is_full = count >= self._limits.max_events or longest * count >= self._limits.max_tokens
