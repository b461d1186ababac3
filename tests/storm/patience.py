"""Time limits that count no time in which the whole storm stood still, as on a machine that was put to sleep."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_STEP_S = 5.0  # longer between two looks, and we did not run ourselves


class Patience:
    """Over after so many seconds, looked at every few of them."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._left_s, self._clock, self._looked_s = limit_s, clock, clock()

    @property
    def over(self) -> bool:
        """Whether the time is up; look often."""
        now_s = self._clock()
        self._left_s -= min(LONGEST_STEP_S, now_s - self._looked_s)
        self._looked_s = now_s
        return self._left_s <= 0
