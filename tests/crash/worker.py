"""A worker as the product runs it, with a model that answers by what it reads, and with a fault or a mutation."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.tasks import load_task
from streams import worker
from streams.exits import leave
from streams.live import Loaded
from streams.settings import Settings
from tests.crash.faults import Fault
from tests.crash.mutations import MUTATIONS
from tests.crash.points import ALL_POINTS
from tests.streams.fakes import FakeModel, loaded

MUTATION = "CRASH_MUTATION"
INFERENCE_S = 0.005
HEADS = {
    "sentiment": ("negative", "neutral", "positive"),
    "intent": ("card_declined", "order_status", "refund_status"),
}


class Model(FakeModel):
    """Takes a few milliseconds for a batch, as models do."""

    def run(self, windows: Sequence[Sequence[int]]) -> Mapping[str, NDArray[np.float32]]:
        time.sleep(INFERENCE_S)
        return super().run(windows)


def load(settings: Settings) -> list[Loaded]:
    """One model for all tasks of the settings."""
    model = Model(heads={task: HEADS[task] for task in settings.tasks})
    return [loaded(model, *(load_task(task) for task in settings.tasks))]


def main() -> int:
    """Break what the environment says, then run as the product does."""
    if mutation := os.environ.get(MUTATION):
        MUTATIONS[mutation].apply()
    if fault := Fault.from_environment():
        ALL_POINTS[fault.point].place(fault)
    serve = worker.serve
    worker.serve = lambda settings, *_: serve(settings, load)
    return worker.main()


if __name__ == "__main__":
    leave(main())
