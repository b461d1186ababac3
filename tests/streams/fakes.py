"""Stand-ins for what is slow or not ours: a model whose answers depend on its input, and a clock set by hand."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from models.classifier import Encoded
from models.tasks import LabelPolicy, Task
from streams.live import Served

LABELS = ("calm", "odd", "bad")


class FakeClassifier:
    """Answers by what it reads, so that a mixed-up result shows.

    The label is one that the text names, else the one picked by the text's length. A text has a token for every
    character, and the tokens carry the characters.

    Args:
        poison: a text with one of these words in it fails every batch it is in.
        fails_on: of the calls, counted from 1, those that fail.
        broken: every call fails.
        cannot_encode: a text with one of these words in it breaks the tokeniser.
        gate: every call waits for it; `entered` says that one does.
    """

    def __init__(
        self,
        poison: Collection[str] = (),
        fails_on: Collection[int] = (),
        broken: bool = False,
        cannot_encode: Collection[str] = (),
        gate: threading.Event | None = None,
        labels: Sequence[str] = LABELS,
        probability: float = 0.9,
    ) -> None:
        self.release = "fake-1"
        self.labels = tuple(labels)
        self.batches: list[list[str]] = []
        self.broken = broken
        self._poison = tuple(poison)
        self._fails_on = frozenset(fails_on)
        self._cannot_encode = tuple(cannot_encode)
        self.entered = threading.Event()
        self._gate = gate
        self._probability = probability

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        for text in texts:
            if any(word in text for word in self._cannot_encode):
                raise ValueError("the tokeniser cannot read this")
        return [Encoded([ord(letter) for letter in text], cut=False) for text in texts]

    def run(self, batch: Sequence[Encoded]) -> NDArray[np.float32]:
        self.entered.set()
        if self._gate is not None:
            assert self._gate.wait(30)
        texts = ["".join(map(chr, one.ids)) for one in batch]
        self.batches.append(texts)
        if self.broken or len(self.batches) in self._fails_on:
            raise RuntimeError("the device is gone")
        for text in texts:
            if any(word in text for word in self._poison):
                raise ValueError("a shape the model cannot take")
        return np.array([self._row(text) for text in texts], np.float32)

    def label_of(self, text: str) -> str:
        named = [label for label in self.labels if label in text]
        return named[0] if named else self.labels[len(text) % len(self.labels)]

    def _row(self, text: str) -> list[float]:
        rest = (1 - self._probability) / (len(self.labels) - 1)
        return [self._probability if label == self.label_of(text) else rest for label in self.labels]


def serve(classifier: FakeClassifier, name: str = "risk", review_below: float = 0.5, **labels: LabelPolicy) -> Served:
    """The classifier under a task that decides this on its labels."""
    return Served(Task(name=name, review_below=review_below, labels=labels), classifier)


class Clock:
    """Seconds that pass when told to; `sleep` passes them and keeps what was asked for."""

    def __init__(self, now_s: float = 1_760_000_000.0) -> None:
        self.now_s = now_s
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
