"""Whether scores mean what they say, and what abstaining by them gives."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

ECE_BINS = 15  # as in Guo et al. 2017
DRAWS = 100  # of outcomes: the mean of their errors is then known to a tenth of its deviation

Floats = npt.NDArray[np.floating]
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
