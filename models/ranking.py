"""How well scores put examples in order: positives before negatives, right answers before wrong ones.

Ties count as ties: no figure here depends on the order in which equal scores happen to stand.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


class RiskCoverage(NamedTuple):
    """One point for every distinct confidence, descending: [m] each, both in [0, 1]."""

    coverage: npt.NDArray[np.float64]  # the share of examples that are at least so confident
    risk: npt.NDArray[np.float64]  # the share of those that are wrong


def auc(positive: Bools, scores: Floats) -> float | None:
    """The probability that a positive example scores above a negative one, ties counting half (Hanley & McNeil 1982).

    None where one of the two is missing. `positive` and `scores` are [n].
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    _, place, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[place]  # from 1, and equal scores share their mean rank
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(positive: Bools, scores: Floats) -> float | None:
    """The precision at every distinct score, weighted by the recall it adds: the area under the precision-recall steps.

    None without a positive example. `positive` and `scores` are [n]; no interpolation (Davis & Goadrich 2006 say why).
    """
    if not positive.any():
        return None
    hits, counts = _at_distinct(positive.astype(np.float64), scores)
    precision, recall = hits / counts, hits / hits[-1]
    return float((precision * np.diff(recall, prepend=0.0)).sum())


def risk_coverage(confidence: Floats, correct: Bools) -> RiskCoverage:
    """What is wrong among the most confident examples, for every share of them (El-Yaniv & Wiener 2010)."""
    wrong, counts = _at_distinct((~correct).astype(np.float64), confidence)
    return RiskCoverage(counts / len(correct), wrong / counts)


def area_under_risk(confidence: Floats, correct: Bools) -> float:
    """The mean risk over all coverages (AURC, Geifman & El-Yaniv 2017): lower is better.

    Examples of one confidence stand in any order: their mistakes are spread evenly among them.
    """
    wrong, counts = _at_distinct((~correct).astype(np.float64), confidence)
    taken = np.arange(1, len(correct) + 1)
    return float((np.interp(taken, np.append(0, counts), np.append(0, wrong)) / taken).mean())


def _at_distinct(values: npt.NDArray[np.float64], scores: Floats) -> tuple[Floats, Floats]:
    """At every distinct score, descending: the sum of the values that score at least so much, and their number."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    return np.cumsum(values[order])[last], (last + 1).astype(np.float64)
