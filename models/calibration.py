"""Scores that mean what they say: calibration, its measure and its cure, and what abstaining by scores gives."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ECE_BINS = 15  # as in Guo et al. 2017
DRAWS = 100  # of outcomes: the mean of their errors is then known to a tenth of its deviation
TEMPERATURES = (0.2, 10.0)  # the range searched: outside it the logits are broken, not uncalibrated
GOLDEN = (math.sqrt(5) - 1) / 2

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


class Reliability(NamedTuple):
    """Equal-width bins of confidence, [bins] each; bin m covers ((m - 1) / bins, m / bins]. Empty bins hold zeros."""

    sizes: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]  # the mean of the bin
    accuracy: npt.NDArray[np.float64]


def reliability(confidence: Floats, correct: Bools, bins: int = ECE_BINS) -> Reliability:
    """How often answers of like confidence are right; `confidence` [n] in [0, 1] is the score of the chosen label."""
    which = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    sizes = np.bincount(which, minlength=bins)
    some = np.maximum(sizes, 1)
    means = [np.bincount(which, values.astype(np.float64), bins) / some for values in (confidence, correct)]
    return Reliability(sizes, *means)


def expected_calibration_error(confidence: Floats, correct: Bools, bins: int = ECE_BINS) -> float:
    """Mean gap between confidence and accuracy over the bins, weighted by their size (Guo et al. 2017, eq. 3)."""
    found = reliability(confidence, correct, bins)
    return float((np.abs(found.accuracy - found.confidence) * found.sizes).sum() / len(confidence))


def calibration_floor(confidence: Floats, bins: int = ECE_BINS) -> float:
    """The ECE that so many texts would show on average if every score meant exactly what it says.

    Bins of few texts are off by chance alone, so the estimate never is zero (so drawn by Broecker and Smith 2007).
    """
    rng = np.random.default_rng(0)
    outcomes = rng.random((DRAWS, len(confidence))) < confidence
    drawn = [expected_calibration_error(confidence, correct, bins) for correct in outcomes]
    return float(np.mean(drawn))


def abstention(confidence: Floats, correct: Bools, review_below: float) -> tuple[float, float | None]:
    """(coverage, selective accuracy): the share of texts decided without a person, and how many of those are right.

    The accuracy is None when every text goes to a person.
    """
    decided = confidence >= review_below
    return float(decided.mean()), float(correct[decided].mean()) if decided.any() else None


def negative_log_likelihood(logits: Floats, targets: Ints, temperature: float) -> float:
    """Mean -log p(target) of logits [n, labels] divided by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    log_partition = np.log(np.exp(scaled).sum(axis=1))
    return float((log_partition - scaled[np.arange(len(targets)), targets]).mean())


def fit_temperature(logits: Floats, targets: Ints) -> float:
    """The temperature that minimises the NLL of held-out logits [n, labels] (Guo et al. 2017, section 4.2).

    Few held-out examples say little: a normal prior on 1 / temperature, mean 1 and deviation 0.5, holds them back.
    The cost is convex in 1 / temperature, so there is one minimum for the golden section to find.
    """

    def cost(inverse: float) -> float:
        return negative_log_likelihood(logits, targets, 1 / inverse) + 2 * (inverse - 1) ** 2 / len(targets)

    coldest, hottest = TEMPERATURES
    return 1 / golden_section(cost, 1 / hottest, 1 / coldest)


def golden_section(function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-4) -> float:
    """Where a function with one minimum in [low, high] takes it, to within `tolerance`."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > tolerance:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2
