"""How far what comes now is from what a release was made with: distances, each with what chance alone would give.

PSI      of counts: which labels, how sure, how long, how much of it in unknown tokens
MMD      of text vectors: whether two samples of texts are about the same

Both are large for a large change, however many texts there are, and both have a limit that says from where on a change
is larger than texts of the same kind give, *and* large enough to matter.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
import numpy.typing as npt

from models.learning.estimated_accuracy import Expected

Quantity = Literal["label", "confidence", "length", "unknown"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)

PSI_MATTERS = 0.2  # below 0.1 nothing, from 0.25 on a major shift, as credit scoring has it (Siddiqi 2006)
LEAST_EXPECTED = 5  # events of a bin; rarer ones are counted together (Cochran 1954)
FALSE_ALARM = 1e-4  # the chance that texts of the same kind reach the limit, at each look
MMD_MATTERS = 0.02  # see `distance`
PERMUTATIONS = 200

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


class Shift(NamedTuple):
    """How far something has moved, and from where on that is drift."""

    value: float
    limit: float

    @property
    def drifted(self) -> bool:
        """Whether it is drift."""
        return self.value > self.limit


@dataclass(frozen=True)
class Bins:
    """Where the values of one quantity are cut, and how many of the reference lie in each part.

    Bin k holds the values from edge k - 1 up to, not including, edge k; the first and the last are open.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @cached_property
    def _cuts(self) -> npt.NDArray[np.float64]:
        return np.array(self.edges, np.float64)

    def count(self, values: npt.ArrayLike) -> Ints:
        """How many of the values [n] lie in each bin, [bins]."""
        found = np.searchsorted(self._cuts, np.asarray(values, np.float64), side="right")
        return np.bincount(found, minlength=len(self.counts))


def bins_of_columns(columns: npt.ArrayLike, count: int) -> Bins:
    """A bin for each of so many columns, as they occur in `columns` [n]."""
    edges = tuple(float(one) for one in range(1, count))
    return Bins(edges, tuple(np.bincount(np.asarray(columns, np.int64), minlength=count).tolist()))


def bins_of_values(values: npt.ArrayLike, most: int = 10) -> Bins:
    """Up to so many bins that hold about equally many of the values [n]; equal values are never parted."""
    ordered = np.asarray(values, np.float64)
    cuts = np.unique(np.quantile(ordered, np.arange(1, most) / most, method="higher"))
    edges = tuple(cuts[cuts > ordered.min()].tolist())  # an empty first bin would tell nothing
    if not edges:  # one value only: what is above it is the second bin
        edges = (float(np.nextafter(ordered.max(), np.inf)),)
    empty = Bins(edges, (0,) * (len(edges) + 1))
    return Bins(edges, tuple(empty.count(ordered).tolist()))


def population_stability(reference: npt.ArrayLike, found: npt.ArrayLike) -> Shift:
    """The population stability index of two counts [bins], and its limit.

    PSI is the sum over the bins of (q - p) ln(q / p). When both samples come from one population it is distributed as
    (1/n + 1/m) times chi-square with bins - 1 degrees of freedom (Yurdakul and Naranjo 2020, J. Risk Model
    Validation 14(4)): the limit is what that exceeds with the chance FALSE_ALARM, and at least PSI_MATTERS. Bins that
    should hold fewer than LEAST_EXPECTED of the smaller sample are counted together. Without any counts it is (0, inf).
    """
    every = [np.asarray(one, np.float64) for one in (reference, found)]
    n, m = (float(one.sum()) for one in every)
    if not n or not m:
        return Shift(0.0, math.inf)
    before, now = _without_rare_bins(every[0], every[1], min(n, m))
    count = len(before)
    # Half an event more everywhere: a bin that is empty in one of the samples must not make the distance infinite.
    p, q = (before + 0.5) / (n + 0.5 * count), (now + 0.5) / (m + 0.5 * count)
    chance = (1 / n + 1 / m) * chi_square_quantile(1 - FALSE_ALARM, count - 1) if count > 1 else 0.0
    return Shift(float(((q - p) * np.log(q / p)).sum()), max(PSI_MATTERS, chance))


def _without_rare_bins(before: Floats, now: Floats, smaller: float) -> tuple[Floats, Floats]:
    rare = (before + now) / (before.sum() + now.sum()) * smaller < LEAST_EXPECTED
    if rare.sum() < 2:
        return before, now
    return np.append(before[~rare], before[rare].sum()), np.append(now[~rare], now[rare].sum())


def chi_square_quantile(probability: float, degrees: int) -> float:
    """Exact for 1 and 2 degrees of freedom; above, Wilson and Hilferty's approximation (1931), within 4% at 0.9999."""
    if degrees == 1:
        return NormalDist().inv_cdf((1 + probability) / 2) ** 2
    if degrees == 2:
        return -2 * math.log(1 - probability)
    spread = 2 / (9 * degrees)
    return float(degrees * (1 - spread + NormalDist().inv_cdf(probability) * math.sqrt(spread)) ** 3)


@dataclass(frozen=True)
class Tally:
    """What was counted of some predictions: their quantities by bin, and how many of them should be right."""

    counts: Mapping[Quantity, Ints] = field(default_factory=dict)
    expected: Expected = field(default_factory=Expected)

    def __add__(self, other: Self) -> "Tally":
        """Both together."""
        counts = dict(self.counts)
        for quantity, its in other.counts.items():
            counts[quantity] = counts[quantity] + its if quantity in counts else its
        return Tally(counts, self.expected + other.expected)


def shifts(reference: Mapping[Quantity, Bins], tally: Tally) -> dict[str, Shift]:
    """How far each quantity that was counted has moved."""
    return {
        quantity: population_stability(reference[quantity].counts, its)
        for quantity, its in tally.counts.items()
        if quantity in reference
    }


def distance(reference: Floats, found: Floats, seed: int = 0) -> Shift:
    """How far two samples of text vectors [n, width] and [m, width] are apart, and the limit.

    The value is the unbiased squared maximum mean discrepancy with a Gaussian kernel as wide as the median distance
    (Gretton et al. 2012, JMLR 13, lemma 6 and section 8), of vectors scaled to length 1. The limit is the highest of
    PERMUTATIONS random divisions of all vectors into two such samples, and at least MMD_MATTERS: texts of the same
    source, weeks apart, are already a little apart, and enough of them prove it. Fewer than two vectors of a sample
    are no sample: (0, inf).
    """
    n, m = len(reference), len(found)
    if n < 2 or m < 2:
        return Shift(0.0, math.inf)
    vectors = np.concatenate([reference, found]).astype(np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    squares = np.maximum(2 - 2 * vectors @ vectors.T, 0)
    width = float(np.median(squares[np.triu_indices(n + m, 1)])) or 1.0
    kernel = np.exp(-squares / width)
    np.fill_diagonal(kernel, 0)
    generator = np.random.default_rng(seed)
    first = np.zeros((n + m, PERMUTATIONS + 1))
    first[:n, 0] = 1
    for column in range(1, PERMUTATIONS + 1):
        first[generator.permutation(n + m)[:n], column] = 1
    within = np.einsum("ij,ij->j", first, kernel @ first)  # sums of the kernel over pairs of the first sample,
    rows = kernel.sum(axis=1) @ first
    across = rows - within  # of pairs between the two,
    others = kernel.sum() - within - 2 * across  # and of pairs of the second
    values = within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * m)
    return Shift(float(values[0]), max(MMD_MATTERS, float(values[1:].max())))
