"""How long two releases take for the same texts, on a machine that does other things too."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from models.classifier import Classifier
from models.evaluation import LATENCY_TEXTS

PASSES = 3
IN_BATCHES = 256  # texts

Progress = Callable[[str, int, int], None]


class Pace(NamedTuple):
    """Milliseconds: of a text alone, and of one among many."""

    p50_ms: float
    p99_ms: float
    in_batches_ms: float


def paces(one: Classifier, other: Classifier, texts: Sequence[str], progress: Progress) -> tuple[Pace, Pace]:
    """Both, measured in turns, so that what slows the machine slows both; of each text the fastest of three passes."""
    alone = texts[:: max(1, len(texts) // LATENCY_TEXTS)][:LATENCY_TEXTS]
    many = texts[:IN_BATCHES]
    both = (one, other)
    single_ms = np.full((2, len(alone)), np.inf)
    batch_ms = [np.inf, np.inf]
    for turn in range(PASSES):
        progress("latency", turn, PASSES)
        for which in (0, 1) if turn % 2 else (1, 0):
            batch_ms[which] = min(batch_ms[which], _took_ms(both[which], many) / len(many))
        for row, text in enumerate(alone):
            for which in (0, 1) if row % 2 else (1, 0):
                single_ms[which, row] = min(single_ms[which, row], _took_ms(both[which], [text]))
    p50_ms, p99_ms = np.percentile(single_ms, [50, 99], axis=1)
    first, second = (Pace(float(p50_ms[place]), float(p99_ms[place]), float(batch_ms[place])) for place in (0, 1))
    return first, second


def _took_ms(classifier: Classifier, texts: Sequence[str]) -> float:
    started_s = time.perf_counter()
    classifier.classify(texts)
    return 1000 * (time.perf_counter() - started_s)
