"""How far what a worker scores is from what its releases were made with: a sample of the events, compared all along.

On an event's way stands `sample` alone, once a slice: it keeps a few of the slice's events, so many a second whatever
the load. They are tokenised and counted on a thread of their own, seconds later, and only the figures are kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from models.learning.drift import Tally, shifts
from models.learning.profiles import Profile
from models.learning.rolling import Rolling
from streams.events import Event
from streams.live import Loaded
from streams.metrics import DriftMetrics
from streams.scoring import Outcome, ScoringFailed
from streams.trial import Row, told

_Sample = tuple[Sequence[Event], Sequence[Outcome]]  # some events that one scorer was given, and their outcomes

log = logging.getLogger(__name__)


class DriftMeter:
    """Compares samples of scored events with the profiles of the releases that scored them.

    Args:
        samples_per_s: events to look at, at most; 0 looks at none.
        window_s: how long an event counts.
        look_every_s: how long what was taken waits.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        samples_per_s: float,
        window_s: float,
        look_every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._samples_per_s = samples_per_s
        self._most = samples_per_s * look_every_s
        self._look_every_s = look_every_s
        self._window_s = window_s
        self._clock = clock
        self._allowed, self._then_s = self._most, clock()
        self._turn = 0
        self._taken: list[_Sample] = []
        self._windows: dict[tuple[str, str], _Window] = {}  # by task and release

    def sample(self, events: Sequence[Event], outcomes: Sequence[Outcome]) -> None:
        """Look at some of these events, whose outcomes by one scorer are in the same order; on the event loop."""
        now_s = self._clock()
        allowed = min(self._most, self._allowed + (now_s - self._then_s) * self._samples_per_s)
        self._then_s, self._allowed = now_s, allowed
        if allowed < 1 or not events:
            return
        step = -(-len(events) // int(allowed))
        self._turn += 1
        start = self._turn % step  # not always the first: a slice may begin where a producer's batch does
        some = events[start::step]
        self._allowed -= len(some)
        self._taken.append((some, outcomes[start::step]))

    async def run(self) -> None:
        """Count what was taken, until cancelled."""
        while True:
            await asyncio.sleep(self._look_every_s)
            await self.look()

    async def look(self) -> None:
        """Count what was taken since the last look, and show how things stand."""
        taken, self._taken = self._taken, []
        await asyncio.to_thread(self._count, taken)

    def _count(self, taken: Sequence[_Sample]) -> None:
        now_s = self._clock()
        for loaded, scored in _by_model(taken):
            try:
                self._count_scored(loaded, scored, now_s)
            except Exception as error:  # a figure less; no event waits for it
                log.warning("%s: drift is not measured: %s", loaded.name, told(error))
        for key, window in list(self._windows.items()):
            if not window.show(now_s):  # nothing scored by this release any more
                del self._windows[key]

    def _count_scored(self, loaded: Loaded, scored: Sequence[tuple[str, Row]], now_s: float) -> None:
        if not loaded.profiles:
            return
        windows = [one.windows for one in loaded.model.encode([text for text, _ in scored])]
        for place, served in enumerate(loaded.served):
            profile = loaded.profiles.get(served.name)
            if profile is None:
                continue
            columns = [row[place][0] for _, row in scored]
            scores = [row[place][1][row[place][0]] for _, row in scored]
            key = (served.name, served.release)
            if key not in self._windows:
                self._windows[key] = _Window(profile, Rolling(self._window_s), DriftMetrics(*key))
            self._windows[key].add(profile.tally(columns, scores, windows), now_s)


class _Window:
    """What one release did for one task lately, beside its profile."""

    def __init__(self, profile: Profile, rolling: Rolling, shown: DriftMetrics) -> None:
        self._profile = profile
        self._rolling = rolling
        self._shown = shown

    def add(self, tally: Tally, now_s: float) -> None:
        self._rolling.add(tally, now_s)

    def show(self, now_s: float) -> bool:
        """Set the gauges; without anything to tell, take them away and say so."""
        tally = self._rolling.total(now_s)
        if not tally.expected.n:
            self._shown.forget()
            return False
        self._shown.moved(shifts(self._profile.bins, tally))
        self._shown.expected(tally.expected, self._profile.expected_accuracy)
        return True


def _by_model(taken: Sequence[_Sample]) -> list[tuple[Loaded, list[tuple[str, Row]]]]:
    found: dict[int, tuple[Loaded, list[tuple[str, Row]]]] = {}
    for events, outcomes in taken:
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, ScoringFailed):
                continue
            loaded, row = outcome
            found.setdefault(id(loaded), (loaded, []))[1].append((event.text, row))
    return list(found.values())
