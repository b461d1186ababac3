"""Whether one release is better or worse than another on the same texts: exact tests, and a bootstrap of macro-F1.

Both answer every text, so that what is compared is the texts on which they differ: `gained` are those that only the
newer one has right, `lost` those that only the older one has right.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SAMPLES = 2000
SAMPLES_AT_ONCE = 200  # times a thousand kinds of rows: a few megabytes
IMAGINED = 2.0

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


class Interval(NamedTuple):
    """An estimate and what it may really be."""

    estimate: float
    low: float
    high: float


def mcnemar(gained: int, lost: int) -> float:
    """The exact one-sided p value of "the newer is not better": the chance of so many of the differing texts, or more.

    Under it each differing text is as likely lost as gained, whatever both have right or wrong: McNemar 1947, in its
    exact, conditional form (Fagerland, Lydersen & Laake 2013). `mcnemar(lost, gained)` is that of "the newer is not
    worse". Texts must be drawn one by one: copies of a text count once.
    """
    n = gained + lost
    ways, at_least = 1, 0  # of k gained among n, for k = n, n - 1, ... gained: whole numbers, so nothing is rounded
    for k in range(n, gained - 1, -1):
        at_least += ways
        ways = ways * k // (n - k + 1)
    return at_least / (1 << n)


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which hypotheses are rejected, with at most `alpha` chance of rejecting any that is true (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    rejected = [False] * len(p_values)
    for place, which in enumerate(order):
        if p_values[which] > alpha / (len(p_values) - place):
            break
        rejected[which] = True
    return rejected


def macro_f1_over(targets: Ints, chosen: Ints, counts: Floats) -> Floats:
    """Macro-F1 [samples] of rows [n] that occur `counts` [samples, n] times.

    It is the mean over the labels that some row truly has, so that both releases are graded on the same labels, also
    those that only one of them can give.
    """
    labels = np.unique(targets)
    truly = (targets[:, None] == labels).astype(np.float64)  # [n, labels]
    given = (chosen[:, None] == labels).astype(np.float64)
    support, picked, hits = counts @ truly, counts @ given, counts @ (truly * given)
    f1 = np.where(support > 0, 2 * hits / np.maximum(support + picked, 1e-12), np.nan)
    means: Floats = np.nanmean(f1, axis=1)
    return means


def macro_f1_gain(
    targets: Ints, before: Ints, after: Ints, level: float = 0.975, samples: int = SAMPLES, seed: int = 0
) -> Interval:
    """How much higher the macro-F1 of `after` is than that of `before`, columns [n] beside the true ones [n].

    Each of the two bounds is passed by the truth with a chance of about 1 - `level`. They are percentiles of a paired
    bootstrap (Efron & Tibshirani 1993, section 13.3; Koehn 2004): texts are drawn anew, each with both answers. As two
    releases differ on few texts, plain percentiles are too sure: with 300 texts a bound of 97.5% was passed by the
    truth in up to 11% of simulations. Two imagined texts that speak against the bound cure that, as in Agresti & Coull
    1998.
    """
    rows, times = np.unique(np.column_stack([targets, before, after]), axis=0, return_counts=True)
    true, old, new = rows.T
    once = times[None].astype(np.float64)
    estimate = float((macro_f1_over(true, new, once) - macro_f1_over(true, old, once))[0])
    low = _low(true, old, new, times, level, samples, seed)
    high = -_low(true, new, old, times, level, samples, seed)
    return Interval(estimate, min(low, estimate), max(high, estimate))


def _low(targets: Ints, before: Ints, after: Ints, times: Ints, level: float, samples: int, seed: int) -> float:
    labels, place = np.unique(targets, return_inverse=True)
    nowhere = np.full(len(labels), -1)
    true = np.concatenate([targets, labels])
    old, new = np.concatenate([before, labels]), np.concatenate([after, nowhere])  # lost texts, each label's share
    weights = np.concatenate([times, IMAGINED * np.bincount(place, times) / times.sum()])
    weights /= weights.sum()
    rng = np.random.default_rng(seed)
    gains = []
    for start in range(0, samples, SAMPLES_AT_ONCE):
        counts = rng.multinomial(times.sum(), weights, size=min(SAMPLES_AT_ONCE, samples - start)).astype(np.float64)
        gains.append(macro_f1_over(true, new, counts) - macro_f1_over(true, old, counts))
    return float(np.quantile(np.concatenate(gains), 1 - level))


def fewest_gained(lost: int, alpha: float) -> int:
    """How many texts have to be gained for `mcnemar` to be at most `alpha`, with so many lost."""
    gained = max(lost, math.floor(math.log2(1 / alpha)))
    while mcnemar(gained, lost) > alpha:
        gained += 1
    return gained
