"""Stand-ins for what is slow or not ours: a model whose answers depend on its input, and a clock set by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.classifier import Encoded, Head, Span
from models.tasks import LabelPolicy, Task
from models.temperature import UNTEMPERED
from models.windows import Rule
from streams.live import Loaded, Served

LABELS = ("calm", "odd", "bad")
COSTS = ((100, 0.001), (1000, 0.01))  # 10 us a token and next to nothing a batch
WAIT_S = 30.0


class FakeModel:
    """Answers by what it reads, so that a mixed-up result shows.

    The label is one that the text names, else the one picked by the text's length. A text has a token for every
    character, and the tokens carry the characters; what is longer than `max_tokens` is read in windows side by side.

    Args:
        poison: a text with one of these words in it fails every batch it is in.
        fails_on: of the calls, counted from 1, those that fail.
        broken: every call fails.
        senseless: a text with one of these words in it gets scores that are no numbers.
        cannot_encode: a text with one of these words in it breaks the tokeniser.
        gate: every call passes it first; see `running`.
        trouble: called with the texts of every call, and may raise.
        memory_tokens: the padded tokens that fit; a larger batch fails as ONNX Runtime fails.
        heads: the labels of each task.
        probability: of the label.
        max_windows: of one text; what they do not hold is cut.
    """

    def __init__(
        self,
        poison: Collection[str] = (),
        fails_on: Collection[int] = (),
        broken: bool = False,
        senseless: Collection[str] = (),
        cannot_encode: Collection[str] = (),
        gate: threading.Semaphore | None = None,
        trouble: Callable[[Sequence[str]], None] = lambda texts: None,
        memory_tokens: int = 1_000_000,
        heads: Mapping[str, Sequence[str]] | None = None,
        probability: float = 0.9,
        slots: int = 1,
        packs: bool = False,
        max_tokens: int = 1000,
        max_windows: int = 32,
        runtime: str = "fake",
    ) -> None:
        self.release, self.runtime, self.device, self.slots = "fake-1", runtime, "cpu", slots
        self.packs = packs
        self.heads: dict[str, Head] = {}
        for task, labels in (heads or {"risk": LABELS}).items():
            first = sum(len(head.labels) for head in self.heads.values())
            self.heads[task] = Head(task, tuple(labels), UNTEMPERED, slice(first, first + len(labels)))
        self.batches: list[list[str]] = []  # in the order in which they passed the gate
        self.most_at_once = 0
        self.broken = broken
        self.memory_tokens = memory_tokens
        self.trouble = trouble
        self._poison, self._senseless, self._cannot_encode = tuple(poison), tuple(senseless), tuple(cannot_encode)
        self._fails_on = frozenset(fails_on)
        self._gate = gate
        self._probability = probability
        self._max_tokens, self._max_windows = max_tokens, max_windows
        self._entered = self._inside = 0
        self._changed = threading.Condition()

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        for text in texts:
            if any(word in text for word in self._cannot_encode):
                raise ValueError("the tokeniser cannot read this")
        return [self._windows(text) for text in texts]

    def _windows(self, text: str) -> Encoded:
        ids, size = list(map(ord, text)), self._max_tokens
        windows = [ids[start : start + size] for start in range(0, len(ids), size)]
        return Encoded(windows[: self._max_windows], len(windows) > self._max_windows)

    def spans(self, text: str) -> list[list[Span]]:
        places, size = [(place, place + 1) for place in range(len(text))], self._max_tokens
        return [places[start : start + size] for start in range(0, len(places), size)][: self._max_windows]

    def padded_tokens(self, lengths: Sequence[int]) -> int:
        return sum(lengths) if self.packs else max(lengths) * len(lengths)

    def run(self, windows: Sequence[Sequence[int]]) -> Mapping[str, NDArray[np.float32]]:
        texts = ["".join(map(chr, ids)) for ids in windows]
        with self._changed:
            self._entered += 1
            self._inside += 1
            self.most_at_once = max(self.most_at_once, self._inside)
            self._changed.notify_all()
        try:
            assert self._gate is None or self._gate.acquire(timeout=WAIT_S), "nobody opened the gate"
        finally:
            with self._changed:
                self._inside -= 1
        self.batches.append(texts)
        if self.broken or len(self.batches) in self._fails_on:
            raise RuntimeError("the device is gone")
        if (tokens := len(texts) * max(map(len, texts))) > self.memory_tokens:
            raise RuntimeError(f"BFCArena: Failed to allocate memory for requested buffer of size {tokens}")
        self.trouble(texts)
        if any(word in text for text in texts for word in self._poison):
            raise ValueError("a shape the model cannot take")
        return {task: np.array([self._row(text, task) for text in texts], np.float32) for task in self.heads}

    async def running(self, calls: int) -> None:
        """Until so many calls have come to the gate, those that have passed it counted."""
        await asyncio.to_thread(self._wait, calls)

    def _wait(self, calls: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._entered >= calls, WAIT_S), f"only {self._entered} calls came"

    def label_of(self, text: str, task: str = "risk") -> str:
        labels = self.heads[task].labels
        named = [label for label in labels if label in text]
        return named[0] if named else labels[len(text) % len(labels)]

    def _row(self, text: str, task: str) -> list[float]:
        labels, best = self.heads[task].labels, self.label_of(text, task)
        if any(word in text for word in self._senseless):
            return [float("nan")] * len(labels)
        rest = (1 - self._probability) / (len(labels) - 1)
        return [self._probability if label == best else rest for label in labels]


def task_of(
    name: str = "risk",
    labels: Mapping[str, LabelPolicy] | None = None,
    review_below: float = 0.5,
    rule: Rule = "mean",
) -> Task:
    """A task that decides this on its labels."""
    return Task(name=name, review_below=review_below, labels=dict(labels or {}), long_text=rule)


def served_of(labels: Sequence[str], task: Task) -> Served:
    """A release with these labels at work on a task."""
    return Served(task, "fake-1", tuple(labels))


def loaded(
    model: FakeModel,
    *tasks: Task,
    costs: tuple[tuple[int, float], ...] = COSTS,
    reference: Callable[[], Loaded] | None = None,
) -> Loaded:
    """The model under these tasks, or under plain ones for all its heads; what batches cost is given, not measured."""
    served = [
        Served(one, model.release, tuple(model.heads[one.name].labels)) for one in tasks or map(task_of, model.heads)
    ]
    return Loaded(model, tuple(served), costs, reference)


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


def jwt(**claims: object) -> str:
    """A token with these claims, signed by nobody."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part(claims)}.c2lnbmVk"
