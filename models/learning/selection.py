"""Which texts a person should label: those a model is unsure of and that say something new, and some drawn at random.

What is unsure is told by the margin between the two best labels (Scheffer et al. 2001), what is new by the distance to
what was chosen already, what is typical by the likeness of its neighbours (information density, Settles and Craven
2008): each turn takes the text with the largest product of the three, so that a day's budget is spent neither on one
question in fifty wordings nor on oddities, of which a model is unsure and nothing can be learned. The texts drawn at
random are what the accuracy is measured on: what was chosen for its uncertainty is harder than what comes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Why = Literal["informative", "random"]

DAY_S = 86_400.0
_ROWS = 1024  # of a matrix of likenesses at a time
# Of 1 and 3, of 10 and 50 and of 0, 1, 2 and 4: tests/benchmarks/active_learning.py
UNSURE_POWER, NEIGHBOURS, TYPICAL_POWER = 3, 10, 2
LEAST_TYPICAL = 0.1  # what is like nothing else is asked about last, not never
RANDOM_SHARE = (
    0.1  # of the budget: each costs what a chosen one would have taught; a hundred give an accuracy within 10 points
)


class Pick(NamedTuple):
    """A text to be labelled, by its place among the candidates, and why."""

    place: int
    why: Why


def uncertainty(probabilities: Floats) -> Floats:
    """1 minus the margin between the two best labels, [n], from probabilities [n, labels]: 0 is sure, 1 undecided."""
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    unsure: Floats = 1 - (best[:, 1] - best[:, 0])
    return unsure


def typicality(vectors: Floats) -> Floats:
    """How much each of n texts is like its nearest neighbours, [n], from `LEAST_TYPICAL` to 1: a mean of cosines.

    Args:
        vectors: [n, width], what the texts are about.
    """
    directions, near = _unit(vectors), min(NEIGHBOURS, len(vectors) - 1)
    if near < 1:
        return np.ones(len(vectors))
    likeness = np.empty(len(vectors))
    for first in range(0, len(vectors), _ROWS):
        rows = directions[first : first + _ROWS] @ directions.T
        rows[np.arange(len(rows)), np.arange(first, first + len(rows))] = -1.0  # itself
        likeness[first : first + _ROWS] = np.partition(rows, -near, axis=1)[:, -near:].mean(axis=1)
    typical: Floats = np.clip(likeness, LEAST_TYPICAL, 1.0)
    return typical


def informative(unsure: Floats, vectors: Floats, count: int, known: Floats | None = None) -> list[int]:
    """The places of up to `count` of n texts, the most informative first.

    Args:
        unsure: [n], see `uncertainty`.
        vectors: [n, width], what the texts are about.
        count: how many.
        known: [m, width], vectors of texts that were asked for, and that the model has not learned from yet.
    """
    directions = _unit(vectors)
    newness = np.ones(len(unsure))
    if known is not None and len(known):
        newness = 1 - (directions @ _unit(known).T).max(axis=1)
    left, chosen = np.ones(len(unsure), bool), list[int]()
    weight = (unsure**UNSURE_POWER + 1e-6) * typicality(vectors) ** TYPICAL_POWER
    for _ in range(min(count, len(unsure))):
        # What repeats a chosen text has newness 0; among several such the unsure one still goes first.
        worth = np.where(left, (np.maximum(newness, 0) + 1e-6) * weight, -1.0)
        place = int(worth.argmax())
        chosen.append(place)
        left[place] = False
        newness = np.minimum(newness, 1 - directions @ directions[place])
    return chosen


def picked(
    unsure: Floats,
    vectors: Floats,
    count: int,
    seed: int,
    known: Floats | None = None,
    sample: Sequence[int] | None = None,
    share: float = RANDOM_SHARE,
) -> list[Pick]:
    """Up to `count` of n texts: a share of them drawn at random, the others as `informative` ranks them.

    The share is kept over many calls too: a fraction of a text is drawn with its probability. It is drawn from
    `sample`, the places of texts that were not chosen by what a model says of them; None: all. There may be too few.
    """
    generator = np.random.default_rng(seed)
    count = min(count, len(unsure))
    from_these = np.arange(len(unsure)) if sample is None else np.asarray(sample, np.int64)
    at_random = min(count, len(from_these), int(count * share + generator.random()))
    drawn = generator.choice(from_these, at_random, replace=False).tolist() if at_random else []
    rest = np.setdiff1d(np.arange(len(unsure)), drawn)
    so_far = vectors[drawn] if known is None else np.concatenate([known, vectors[drawn]])
    ranked = informative(unsure[rest], vectors[rest], count - at_random, so_far)
    return [*(Pick(place, "random") for place in drawn), *(Pick(int(rest[place]), "informative") for place in ranked)]


def _unit(vectors: Floats) -> Floats:
    lengths: Floats = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors / lengths


@dataclass
class DailyBudget:
    """How many labels may be asked for now: the budget is spent evenly over each day (UTC), and never exceeded.

    Args:
        labels_a_day: the budget.
        asked: how many were asked for in the day of `since_s`.
        since_s: seconds since 1970.
    """

    labels_a_day: int
    asked: int = 0
    since_s: float = 0.0

    def allowed(self, now_s: float) -> int:
        """How many may be asked for at this time, in seconds since 1970."""
        self._turn(now_s)
        due = int(self.labels_a_day * (now_s % DAY_S) / DAY_S)
        return max(0, due - self.asked)

    def left(self, now_s: float) -> int:
        """How many the rest of the day has, for when something happens that cannot wait."""
        self._turn(now_s)
        return max(0, self.labels_a_day - self.asked)

    def spend(self, labels: int, now_s: float) -> None:
        """So many were asked for."""
        self._turn(now_s)
        self.asked += labels

    def _turn(self, now_s: float) -> None:
        if now_s // DAY_S > self.since_s // DAY_S:
            self.asked = 0
        self.since_s = max(self.since_s, now_s)


def labels_to_reach(curve: Sequence[tuple[int, float]], level: float) -> float | None:
    """How many labels it takes to reach a level for good, from points (labels, figure); None if it is not reached.

    Between two points the curve is a straight line. A single point above the level with lower ones behind it is luck.
    """
    below = [place for place, (_, figure) in enumerate(curve) if figure < level]
    if not below:
        return float(curve[0][0])
    last = below[-1]
    if last + 1 == len(curve):
        return None
    (x0, y0), (x1, y1) = curve[last], curve[last + 1]
    return x0 + (x1 - x0) * (level - y0) / (y1 - y0)
