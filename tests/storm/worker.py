"""The worker of a storm: the real one, with a model that needs no time and signals that hurt it from inside.

SIGUSR1: the model fails on everything for three seconds. SIGUSR2: a background task fails. SIGRTMIN, SIGRTMIN + 1: the
wall clock, as Python sees it, jumps an hour forward, a day back (in this process alone; nothing needs installing).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from types import FrameType

MODEL_FAILS, TASK_FAILS = signal.SIGUSR1, signal.SIGUSR2
CLOCK_FORWARD, CLOCK_BACK = signal.SIGRTMIN, signal.SIGRTMIN + 1
JUMPS_S = {CLOCK_FORWARD: 3600.0, CLOCK_BACK: -86_400.0}
FAILS_FOR_S = 3.0
MODELS: Sequence[Sequence[str]] = (("risk", "sentiment"), ("intent",))  # one with two heads, one alone


class WallClock:
    """In place of `time.time`."""

    def __init__(self) -> None:
        self._real, self._ahead_s = time.time, 0.0

    def __call__(self) -> float:
        """Seconds since 1970, and all jumps so far."""
        return self._real() + self._ahead_s

    def jump(self, number: int, _: FrameType | None) -> None:
        """As a signal handler."""
        self._ahead_s += JUMPS_S[number]


def main() -> int:
    """Start the worker."""
    clock = WallClock()
    time.time = clock
    for number in JUMPS_S:
        signal.signal(number, clock.jump)

    from models.tasks import load_task  # from here on: whatever takes the clock for its own takes ours
    from streams.exits import guarded
    from streams.live import Loaded, serve
    from streams.settings import Settings
    from streams.worker import main as run_worker
    from tests.storm.model import StormModel

    models = [StormModel(tasks) for tasks in MODELS]

    async def failing() -> None:
        raise RuntimeError("a background task fails, as the storm wants it")

    def model_fails(number: int, _: FrameType | None) -> None:
        for model in models:
            model.fail_for(FAILS_FOR_S)

    def task_fails(number: int, _: FrameType | None) -> None:
        guarded(failing(), "a task of the storm")

    def load(settings: Settings) -> list[Loaded]:
        return [serve(model, [load_task(name) for name in model.heads]) for model in models]

    signal.signal(MODEL_FAILS, model_fails)
    signal.signal(TASK_FAILS, task_fails)
    return run_worker(load)


if __name__ == "__main__":
    from streams.exits import leave

    leave(main())
