"""The worker with a model that does nothing: what is left is what the stream costs.

Everything else is the real thing: `streams.worker.serve` with its intake, batching, scoring, decisions and publishing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import uvloop

from models.classifier import Encoded, Head, Span
from models.tasks import load_task
from models.temperature import UNTEMPERED
from models.windows import Floats
from streams.bench.systems.common import NULL_LABELS, NULL_RELEASE, NULL_ROW
from streams.live import Loaded
from streams.live import serve as serve_model
from streams.settings import Settings, load_settings
from streams.worker import serve, set_up_logging

_ENCODED = Encoded([[101, 102]], False)  # no words between the two special tokens


class NullModel:
    """Constant scores for one task, at no cost."""

    release, runtime, device, slots, packs = NULL_RELEASE, "null", "cpu", 1, False

    def __init__(self, task: str) -> None:
        self.heads: Mapping[str, Head] = {task: Head(task, NULL_LABELS, UNTEMPERED, slice(0, len(NULL_LABELS)))}
        self._task = task

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The same two tokens for each."""
        return [_ENCODED] * len(texts)

    def spans(self, text: str) -> list[list[Span]]:
        """None of the two tokens stands for a word."""
        return [[(0, 0), (0, 0)]]

    def padded_tokens(self, lengths: Sequence[int]) -> int:
        """Without padding."""
        return sum(lengths)

    def run(self, windows: Sequence[Sequence[int]]) -> Mapping[str, Floats]:
        """The same row for each."""
        return {self._task: np.broadcast_to(NULL_ROW, (len(windows), len(NULL_ROW)))}


def load_null(settings: Settings) -> list[Loaded]:
    """In place of `streams.live.load_models`, for settings with one task."""
    (name,) = settings.tasks
    return [serve_model(NullModel(name), [load_task(str(settings.models.tasks.get(name, name)))])]


if __name__ == "__main__":
    set_up_logging()
    uvloop.run(serve(load_settings(), load_null))
