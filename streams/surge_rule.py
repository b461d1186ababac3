"""When is a window of hits a surge, and how big is it: the statistics, on one entity's buckets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Literal

from typing_extensions import TypedDict

from streams.settings import SurgeSettings

PRIOR_HITS = 0.5  # Jeffreys' prior of a Poisson rate, Gamma(1/2, 0): the posterior mean is (hits + 1/2) / exposure

Severity = Literal["low", "medium", "high"]


class SurgeCounts(TypedDict):
    """The window in numbers: `ratio` is hits / expected, `p_value` the chance of so many hits or more."""

    hits: int
    total: int
    expected: float
    p_value: float
    ratio: float


def window_s(settings: SurgeSettings) -> int:
    """Length of the window."""
    return settings.window_buckets * settings.bucket_s


def baseline_s(settings: SurgeSettings) -> int:
    """Longest length of the baseline: never shorter than the window it is compared with."""
    return max(settings.baseline_buckets * settings.bucket_s, window_s(settings))


def count_window(
    settings: SurgeSettings,
    buckets: Mapping[int, tuple[int, int]],
    window_from_s: int,
    window_to_s: int,
    history_from_s: int,
) -> SurgeCounts:
    """The numbers of the window from `window_from_s` on, against the baseline before it.

    Expected = (baseline hits + 1/2) / baseline length x window length: the posterior mean of a Poisson rate under
    Jeffreys' prior. The chance is that of the posterior predictive distribution, a negative binomial of shape
    baseline hits + 1/2, so that a short baseline counts as the little evidence that it is (Gelman et al., Bayesian
    Data Analysis, 3rd ed., sections 2.6 to 2.8). The length counts from `history_from_s`, where the partition's log
    begins, as an entity that was not in the log had no hits; it is one window at least.

    Args:
        settings: of the detector.
        buckets: start in s -> hits, total.
        window_from_s: start of the window's first bucket.
        window_to_s: end of its last one; what another source partition has brought beyond it does not count.
        history_from_s: start of the first bucket of the partition's history.
    """
    length_s = min(max(window_from_s - history_from_s, window_s(settings)), baseline_s(settings))
    hits = total = past_hits = 0
    for start_s, (bucket_hits, bucket_total) in buckets.items():
        if start_s >= window_to_s:
            continue
        if start_s >= window_from_s:
            hits += bucket_hits
            total += bucket_total
        elif start_s >= window_from_s - baseline_s(settings):
            past_hits += bucket_hits
    shape = past_hits + PRIOR_HITS
    expected = shape / length_s * window_s(settings)
    return {
        "hits": hits,
        "total": total,
        "expected": expected,
        "p_value": negative_binomial_tail(hits, shape, expected),
        "ratio": hits / expected,
    }


def is_surge(settings: SurgeSettings, counts: SurgeCounts) -> bool:
    """Enough hits, far enough beyond what was expected, and hardly by chance."""
    return (
        counts["hits"] >= settings.min_support
        and counts["ratio"] >= settings.ratio
        and counts["p_value"] <= settings.significance
    )


def is_over(settings: SurgeSettings, counts: SurgeCounts) -> bool:
    """Well below what opens a surge, so that one at the edge does not flap."""
    return counts["hits"] < max(settings.min_support / 2, settings.resolve_ratio * counts["expected"])


def severity(settings: SurgeSettings, ratio: float) -> Severity:
    """By effect size, the ratio to what was expected: from two and four times the ratio that opens a surge."""
    times = ratio / settings.ratio
    return "high" if times >= 4 else "medium" if times >= 2 else "low"


def negative_binomial_tail(hits: int, shape: float, mean: float) -> float:
    """P(X >= hits) for X negative binomial; sums the shorter side, from its largest term outwards.

    Args:
        hits: any.
        shape: of the Gamma mixture of Poissons, > 0; the larger, the nearer to a Poisson.
        mean: > 0.
    """
    if hits <= 0:
        return 1.0
    share = mean / (shape + mean)
    above = hits > mean
    start = hits if above else hits - 1
    factors: Iterable[float] = (n / (share * (n - 1 + shape)) for n in range(start, 0, -1))
    if above:
        factors = (share * (n - 1 + shape) / n for n in itertools.count(hits + 1))
    ways = math.lgamma(start + shape) - math.lgamma(shape) - math.lgamma(start + 1)
    term = total = math.exp(ways + shape * math.log1p(-share) + start * math.log(share))
    for factor in factors:
        term *= factor
        total += term
        if term <= total * 1e-17:
            break
    return min(total, 1.0) if above else max(1.0 - total, 0.0)
