"""A worker whose models fall ill on command: `python -m tests.streams.sick_worker`, commanded by the file $SICK_FILE.

Everything but the chosen way to run each model is the product's own, the reference that is loaded from the release too.
The file holds one word; it is read before every run.

    well      runs as it should
    error     every run fails
    flaky     three of ten runs fail
    memory    a batch of more than 64 padded tokens does not fit
    slow      every run takes 0.2 s longer
    hang      no run comes back
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import uvloop

from models.runtimes import Floats
from streams import breaker
from streams.live import Loaded, TextModel, load_models
from streams.settings import Settings, load_settings
from streams.worker import serve, set_up_logging

POISON = "mule"  # a text with this word breaks its model, however it is run
MEMORY_TOKENS = 64


class Sick:
    """A model that does what the file says."""

    def __init__(self, model: TextModel, file: Path | None) -> None:
        """Without a file it only knows poison."""
        self._model, self._file = model, file
        self._poison = model.encode([POISON])[0].windows[0][1]
        self._rng = random.Random(5)
        self.release, self.runtime, self.device = model.release, model.runtime, model.device
        self.slots, self.heads, self.packs = model.slots, model.heads, model.packs
        self.encode, self.spans, self.padded_tokens = model.encode, model.spans, model.padded_tokens

    def run(self, windows: Sequence[Sequence[int]]) -> Mapping[str, Floats]:
        if self._file is not None:
            self._suffer(self._file.read_text(), windows)
        if any(self._poison in ids for ids in windows):
            raise ValueError("a word the model cannot take")
        return self._model.run(windows)

    def _suffer(self, state: str, windows: Sequence[Sequence[int]]) -> None:
        if state == "error" or (state == "flaky" and self._rng.random() < 0.3):
            raise RuntimeError("CUDA failure 719: unspecified launch failure")
        if state == "memory" and len(windows) * max(map(len, windows)) > MEMORY_TOKENS:
            raise RuntimeError("CUDA failure 2: out of memory")
        if state == "slow":
            time.sleep(0.2)
        if state == "hang":
            threading.Event().wait()


def load(settings: Settings) -> list[Loaded]:
    """The settings' models, the chosen way of each commanded by the file."""
    file = Path(os.environ["SICK_FILE"])
    return [_sick(one, file) for one in load_models(settings)]


def _sick(one: Loaded, file: Path) -> Loaded:
    reference = one.reference
    assert reference is not None

    def poisoned() -> Loaded:
        found = reference()
        return replace(found, model=Sick(found.model, None))

    return replace(one, model=Sick(one.model, file), reference=poisoned)


if __name__ == "__main__":
    set_up_logging()
    breaker.LONGEST_WAIT_S = 2.0  # or the next illness would find a runtime that is not trusted again yet
    logging.getLogger("streams").setLevel(logging.INFO)
    uvloop.run(serve(load_settings(), load))
