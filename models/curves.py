"""Training curves: the figures of a run, step by step, to whoever draws or keeps them."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from models.errors import MissingExtra


class Curves(Protocol):
    """What a training loop hands its figures to; opened and closed by whoever starts the run."""

    def step(self, values: Mapping[str, float], step: int) -> None:
        """Take figures by name, such as `train/loss` or `dev/macro_f1`, after `step` optimiser steps (0 or more)."""
        ...


class Together:
    """Several curves that get the same figures, in their order; none at all is fine."""

    def __init__(self, *curves: Curves) -> None:
        self.curves = curves

    def step(self, values: Mapping[str, float], step: int) -> None:
        """Hand the figures on to each."""
        for one in self.curves:
            one.step(values, step)


class TensorBoardCurves:
    """Writes figures as a TensorBoard event file, for `tensorboard --logdir FOLDER`. A context manager.

    Raises MissingExtra where TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise MissingExtra('--curves needs TensorBoard: pip install "streamgauge[curves]"') from error
        self._event: Any = Event
        self._summary: Any = Summary
        folder.mkdir(parents=True, exist_ok=True)
        self._writer: Any = EventFileWriter(str(folder))

    def step(self, values: Mapping[str, float], step: int) -> None:
        """Write figures with the time."""
        summary = self._summary(value=[{"tag": name, "simple_value": value} for name, value in values.items()])
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def __enter__(self) -> "TensorBoardCurves":
        return self

    def __exit__(self, *failure: object) -> None:
        self._writer.close()
