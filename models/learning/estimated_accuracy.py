"""How often a classifier is right while nobody labels, from its calibrated scores; and how often it was, from labels.

If scores are calibrated, a prediction of score s is right with probability s: so the mean score is the accuracy to
expect, and sums of probabilities are the confusion matrix to expect. NannyML calls this confidence-based performance
estimation; Guillory et al. 2021 (ICCV) compare what it rests on. It sees changes of what comes, not of what is right:
texts that a model is wrong and sure about look well. So it stands beside what labels say, where there are some.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Z_95 = 1.959964

Floats = npt.NDArray[np.floating]


class Interval(NamedTuple):
    """An estimate and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Expected:
    """Sums over n predictions; two of them added are those over both.

    `correct` is how many should be right, `variance` of that number. `hits`, `predicted` and `actual` [labels] are how
    many of each label should be found, are predicted and should be there: empty where only the best scores are known.
    """

    n: int = 0
    correct: float = 0.0
    variance: float = 0.0
    hits: tuple[float, ...] = ()
    predicted: tuple[float, ...] = ()
    actual: tuple[float, ...] = ()

    def __add__(self, other: "Expected") -> "Expected":
        """Both together."""
        return Expected(
            self.n + other.n,
            self.correct + other.correct,
            self.variance + other.variance,
            _added(self.hits, other.hits),
            _added(self.predicted, other.predicted),
            _added(self.actual, other.actual),
        )

    @property
    def accuracy(self) -> Interval | None:
        """The share that should be right, with the interval that sampling gives; None without predictions."""
        if not self.n:
            return None
        share, half = self.correct / self.n, Z_95 * math.sqrt(self.variance) / self.n
        return Interval(share, max(0.0, share - half), min(1.0, share + half))

    @property
    def macro_f1(self) -> float | None:
        """The macro-F1 to expect, over the labels that should be there or are predicted; None where it is not known."""
        both = [(hits, p + a) for hits, p, a in zip(self.hits, self.predicted, self.actual, strict=True) if p + a > 0]
        return sum(2 * hits / total for hits, total in both) / len(both) if both else None


def _added(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True)) if one and other else one or other


def expected_of_scores(scores: npt.ArrayLike) -> Expected:
    """What the calibrated scores [n] of the best labels let expect."""
    best = np.asarray(scores, np.float64)
    return Expected(len(best), float(best.sum()), float((best * (1 - best)).sum()))


def expected(probabilities: Floats) -> Expected:
    """What calibrated probabilities [n, labels] let expect, of each label too."""
    chosen, best = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(np.float64)
    labels = probabilities.shape[1]
    return Expected(
        len(best),
        float(best.sum()),
        float((best * (1 - best)).sum()),
        tuple(np.bincount(chosen, best, labels).tolist()),
        tuple(np.bincount(chosen, minlength=labels).astype(float).tolist()),
        tuple(probabilities.sum(axis=0, dtype=np.float64).tolist()),
    )


class Labelled(NamedTuple):
    """A prediction whose true label is known: whether it was right, and its score."""

    correct: bool
    score: float


@dataclass(frozen=True)
class Realised:
    """What n labels say. `expected` is what the scores of the same texts let expect: apart, calibration is gone."""

    n: int
    accuracy: Interval
    expected: float

    @property
    def misled(self) -> bool:
        """Whether the scores promise more than the labels allow: the estimate without labels cannot be trusted."""
        return self.expected > self.accuracy.high


def realised(labelled: Iterable[Labelled]) -> Realised | None:
    """How many predictions were right, with Wilson's interval (1927); None without any.

    What was chosen for its uncertainty is harder than what comes: give only texts that were chosen at random, or read
    `expected` beside it, which is of the same texts.
    """
    rows = list(labelled)
    if not rows:
        return None
    n, right = len(rows), sum(row.correct for row in rows)
    return Realised(n, wilson(right, n), sum(row.score for row in rows) / n)


def wilson(right: int, n: int) -> Interval:
    """A share and its interval, which stays within [0, 1] and is right for few as well."""
    share, z2 = right / n, Z_95**2
    middle, half = share + z2 / (2 * n), Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Interval(share, max(0.0, (middle - half) / (1 + z2 / n)), min(1.0, (middle + half) / (1 + z2 / n)))
