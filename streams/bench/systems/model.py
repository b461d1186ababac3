"""The real model, used in the same way by every system but ours, whose worker has its own way to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from models.classifier import Model
from models.windows import Floats, merge
from streams.bench.job import Job, Tally


class ModelScorer:
    """The release, whole batches at a time; its tokens are counted.

    A runtime takes `slots` batches at once, on a CPU a thread each. A batch is cut into as many parts, in its order, so
    that a system which brings one batch at a time has all of the machine too.
    """

    def __init__(self, job: Job) -> None:
        """Load the release; it runs once before anything is counted."""
        self._model = Model.load(Path(job.release), runtime=job.runtime)
        head = self._model.heads[job.task]
        self.release, self.labels = self._model.release, head.labels
        self.slots, self.device = self._model.slots, self._model.device
        self._task = job.task
        self._tally, self._lock = Tally(job.directory), threading.Lock()
        self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="model")
        self._model.run([window for one in self._model.encode(["warm up"] * 2) for window in one.windows])
        about = {"runtime": self._model.runtime, "device": self.device, "slots": self.slots, "release": self.release}
        job.model_file.write_text(json.dumps(about), encoding="utf-8")

    def windows(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """Token ids of the windows of each text."""
        return [one.windows for one in self._model.encode(texts)]

    def run(self, windows: Sequence[Sequence[int]], texts: int) -> Floats:
        """Rows of the windows of one batch, which stands for so many texts."""
        rows = self._model.run(windows)[self._task][:, : len(self.labels)]
        lengths = [len(one) for one in windows]
        with self._lock:
            self._tally.add(texts, sum(lengths), max(lengths) * len(lengths))
        return rows

    def score(self, texts: Sequence[str]) -> Floats:
        """Probabilities [texts, labels]; the windows of a long text count by their tokens, as its rule "mean" says."""
        by_text = self.windows(texts)
        flat = [window for windows in by_text for window in windows]
        size = -(-len(flat) // self.slots)
        parts = [flat[start : start + size] for start in range(0, len(flat), size)]
        rows = np.concatenate(list(self._threads.map(lambda part: self.run(part, len(part)), parts)))
        if len(flat) == len(by_text):
            return rows
        ends = np.cumsum([len(windows) for windows in by_text])
        lengths = [[len(window) for window in windows] for windows in by_text]
        return np.stack(
            [merge(part, length, "mean", ()) for part, length in zip(np.split(rows, ends[:-1]), lengths, strict=True)]
        )
