"""The tally of the last so many seconds, kept in slots of time: a slot leaves as a whole."""

import math
from collections import deque

from models.learning.drift import Tally

SLOTS = 12


class Rolling:
    """What was counted within the last `window_s` seconds, to within a SLOTS-th of it."""

    def __init__(self, window_s: float) -> None:
        self._slot_s = window_s / SLOTS
        self._slots: deque[tuple[int, Tally]] = deque()  # by number, ascending

    def add(self, tally: Tally, at_s: float) -> None:
        """Count what happened at this time, on any clock that does not go back; what comes late counts as latest."""
        number = math.floor(at_s / self._slot_s)
        if self._slots and self._slots[-1][0] >= number:
            last, before = self._slots.pop()
            self._slots.append((last, before + tally))
        else:
            self._slots.append((number, tally))

    def total(self, now_s: float) -> Tally:
        """All that is within the window now."""
        first = math.floor(now_s / self._slot_s) - SLOTS + 1
        while self._slots and self._slots[0][0] < first:
            self._slots.popleft()
        return sum((tally for _, tally in self._slots), Tally())
