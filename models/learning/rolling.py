"""The tally of the last so many seconds, kept in slots of time: a slot leaves as a whole."""

import math

from models.learning.drift import Tally

SLOTS = 12


class Rolling:
    """What was counted within the last `window_s` seconds, to within a SLOTS-th of it; it may come in any order."""

    def __init__(self, window_s: float) -> None:
        self._slot_s = window_s / SLOTS
        self._slots: dict[int, Tally] = {}

    def add(self, tally: Tally, at_s: float) -> None:
        """Count what happened at this time."""
        number = math.floor(at_s / self._slot_s)
        before = self._slots.get(number)
        self._slots[number] = tally if before is None else before + tally

    def total(self, now_s: float) -> Tally:
        """All that is within the window now."""
        now = math.floor(now_s / self._slot_s)
        self._slots = {number: tally for number, tally in self._slots.items() if now - SLOTS < number}
        return sum((tally for number, tally in self._slots.items() if number <= now), Tally())
