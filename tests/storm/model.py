"""A model for storms: scores follow from the text alone and cost nothing, and some texts break it.

A score depends on its text's bytes, so that outcomes given to the wrong text in a batch show as wrong labels.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from models.classifier import Encoded, Head, Span
from models.tasks import load_task
from models.temperature import UNTEMPERED
from models.windows import Floats

BREAKS_MODEL, BREAKS_TOKENISER, NOT_FINITE = "breaks-the-model", "breaks-the-tokeniser", "scores-not-finite"
RELEASE = "storm"
_SALTS = {"sentiment": 3, "risk": 5, "intent": 7}
_MARKS = {BREAKS_MODEL: -1, NOT_FINITE: -2}
_DIGEST = 8


@cache
def labels_of(task: str) -> tuple[str, ...]:
    """The labels of a shipped task."""
    return tuple(load_task(task).labels)


def scores_of(text: str, task: str) -> list[float]:
    """The probability of each label: one of them 0.403 to 0.983, the others alike."""
    return _scores(_ids(text), task)


def _ids(text: str) -> list[int]:
    mark = _MARKS.get(text.split(" ", 1)[0], 0)
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=_DIGEST).digest()
    return [*digest, mark, *range(len(text.split()))]


def _scores(ids: Sequence[int], task: str) -> list[float]:
    count, salt = len(labels_of(task)), _SALTS[task]
    number = sum(value * salt**place for place, value in enumerate(ids[:_DIGEST]))
    top = 0.403 + number // count % 59 / 100
    rest = [(1 - top) / (count - 1)] * count
    rest[number % count] = top
    return rest


class StormModel:
    """Serves some tasks; `fail_for` makes it fail on everything for a while."""

    release, runtime, device, slots, packs = RELEASE, "storm", "cpu", 1, False

    def __init__(self, tasks: Sequence[str]) -> None:
        self.heads: Mapping[str, Head] = {
            task: Head(task, labels_of(task), UNTEMPERED, slice(0, len(labels_of(task)))) for task in tasks
        }
        self._fails_until_s = 0.0

    def fail_for(self, seconds: float) -> None:
        """From now on, for so long, every run fails."""
        self._fails_until_s = time.monotonic() + seconds

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """A digest of each text, and as many more ids as it has words."""
        if any(text.startswith(BREAKS_TOKENISER) for text in texts):
            raise ValueError("a text that cannot be tokenised")
        return [Encoded([_ids(text)], False) for text in texts]

    def spans(self, text: str) -> list[list[Span]]:
        """No id stands for a word."""
        return [[(0, 0)] * len(_ids(text))]

    def padded_tokens(self, lengths: Sequence[int]) -> int:
        """Without padding."""
        return sum(lengths)

    def run(self, windows: Sequence[Sequence[int]]) -> Mapping[str, Floats]:
        """The scores of each text."""
        if time.monotonic() < self._fails_until_s:
            raise RuntimeError("the model fails on everything for now")
        marks = [window[_DIGEST] if len(window) > _DIGEST else 0 for window in windows]
        if _MARKS[BREAKS_MODEL] in marks:
            raise ValueError("a text that breaks the model")
        found = {}
        for task in self.heads:
            rows = np.array([_scores(window, task) for window in windows], np.float32)
            rows[[mark == _MARKS[NOT_FINITE] for mark in marks]] = np.nan
            found[task] = rows
        return found
