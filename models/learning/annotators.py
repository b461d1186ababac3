"""What each annotator's labels are worth, and what a text's label is, from labels that contradict each other.

The model is that of Dawid and Skene (1979, Applied Statistics 28:20-28): every text has one true label, unknown; every
annotator gives a label that depends on the true one alone, by a confusion matrix of their own. Expectation and
maximisation estimate both. Few texts have two annotators, so a judge that learned from the others votes on each text
too, like one more annotator (as in CROWDLAB: Goh, Tkachenko and Mueller 2022, arXiv:2210.06812). Most confusions are
seen never or once: a matrix is drawn towards the one whose errors are alike for all labels, and that annotator's rate
of errors towards what is expected of people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median_high
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.learning.curation import AnnotatorGrade, CurationSettings

EXPECTED_RIGHT = 0.9  # of an annotator of whom nothing is known, and for the weight of
EXPECTED_OPINIONS = 10  # so many opinions
SMOOTHING = 5  # opinions on a label that a row of the matrix is drawn to the common rate by
MOST_STEPS = 100
SETTLED = 1e-4  # no probability moves more in a step
DOUBT = 0.05  # that one or more of all comparisons blame an annotator by chance

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Votes:
    """Who gives which label to which text; the three arrays are [votes], of numbers from 0."""

    text: Ints
    voter: Ints
    label: Ints
    labels: int  # how many there are

    def select(self, chosen: npt.NDArray[np.bool_]) -> Votes:
        """Some of the votes; texts and voters keep their numbers."""
        return Votes(self.text[chosen], self.voter[chosen], self.label[chosen], self.labels)


class Agreed(NamedTuple):
    """What texts are, by all votes."""

    probabilities: Floats  # [texts, labels]
    without: Floats  # [votes, labels]: the same for the vote's text, by all votes but this one
    right: Floats  # [voters]: the estimated probability that a label of theirs is right


def agreed(votes: Votes, texts: int, voters: int) -> Agreed:
    """Dawid and Skene's estimate for `texts` and `voters`, of whom any may have no vote. Labels are two or more.

    A text with one vote tells nothing of its voter, and is as sure as they are. (The estimate could explain a rare
    label that one annotator alone gives only as their error.)
    """
    shared = np.bincount(votes.text, minlength=texts)[votes.text] > 1
    compared, lone = votes.select(shared), votes.select(~shared)
    pairs, pair = np.unique(compared.voter * votes.labels + compared.label, return_inverse=True)
    voter, label = np.divmod(pairs, votes.labels)  # a pair is a voter and a label that they gave
    beliefs = _shares(votes, texts)
    for _ in range(MOST_STEPS):
        seen, right = _confusion(compared, beliefs, pair, voter, label, voters)
        common = (beliefs.sum(axis=0) + 1) / (texts + votes.labels)
        logs = np.tile(np.log(common), (texts, 1))
        said = np.log(seen)[pair]
        np.add.at(logs, compared.text, said)
        before, beliefs = beliefs, _normalised(logs)
        beliefs[lone.text] = _rows(right[lone.voter], lone.label, votes.labels)
        if np.abs(beliefs - before).max(initial=0) < SETTLED:
            break
    without = np.tile(common, (len(votes.text), 1))
    without[shared] = _normalised(logs[compared.text] - said)
    return Agreed(beliefs, without, right)


def _rows(right: Floats, label: Ints, labels: int) -> Floats:
    """Rows [n, labels] with so much for the label, and the rest for all others alike."""
    rows = np.repeat(((1 - right) / (labels - 1))[:, None], labels, axis=1)
    rows[np.arange(len(right)), label] = right
    return rows


def _shares(votes: Votes, texts: int) -> Floats:
    """Where the estimate begins: of each text the share of votes that a label has; all alike without votes."""
    counts = np.zeros((texts, votes.labels))
    np.add.at(counts, (votes.text, votes.label), 1)
    totals = counts.sum(axis=1, keepdims=True)
    shares: Floats = np.where(totals > 0, counts / np.maximum(totals, 1), 1 / votes.labels)
    return shares


def _confusion(
    votes: Votes, beliefs: Floats, pair: Ints, voter: Ints, label: Ints, voters: int
) -> tuple[Floats, Floats]:
    """How probable each pair's label is of its voter, given the true one, and who is how often right."""
    of_votes = beliefs[votes.text]
    counts = np.zeros((len(voter), votes.labels))
    np.add.at(counts, pair, of_votes)
    totals = np.zeros((voters, votes.labels))
    np.add.at(totals, votes.voter, of_votes)
    held = np.zeros(voters)
    np.add.at(held, votes.voter, of_votes[np.arange(len(pair)), votes.label])
    right = (held + EXPECTED_RIGHT * EXPECTED_OPINIONS) / (totals.sum(axis=1) + EXPECTED_OPINIONS)
    rate = _rows(right[voter], label, votes.labels)
    return (counts + SMOOTHING * rate) / (totals[voter] + SMOOTHING), right


def _normalised(logs: Floats) -> Floats:
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


class _Rate(NamedTuple):
    """How often something held, of how often it could; both may be sums of probabilities."""

    held: float
    of: float

    @property
    def share(self) -> float:
        """0..1; 0 where nothing could hold."""
        return self.held / self.of if self.of else 0.0


def _highest_likely(rate: _Rate, doubt: float) -> float:
    """The upper end of Wilson's score interval (1927): above it a share lies with probability `doubt` at most."""
    if rate.of <= 0:
        return 1.0
    z = NormalDist().inv_cdf(1 - doubt)
    middle = rate.share + z * z / (2 * rate.of)
    width: float = z * ((rate.share * (1 - rate.share) + z * z / (4 * rate.of)) / rate.of) ** 0.5
    return min(1.0, (middle + width) / (1 + z * z / rate.of))


def grades(
    names: Sequence[str],
    labels: Sequence[str],
    votes: Votes,
    result: Agreed,
    comparable: npt.NDArray[np.bool_],
    settings: CurationSettings,
) -> Mapping[str, AnnotatorGrade]:
    """Everybody's grade. Voter `v` is `names[v]`; the result may have further votes behind these, of judges.

    Compared is how often an annotator says what the others hold, for all texts and for those of each label that the
    others hold; `comparable` [votes] tells which opinions the others can judge. Who agrees surely less than
    `least_agreement` times as often as the middle one of the annotators is quarantined, unless trusted. What rests on
    fewer than `least_compared` opinions is not compared.
    """
    least = settings.least_compared
    rates = _rates(votes, result, comparable, len(names))
    tests = sum(rate.of >= least for its in rates for rate in its)
    found = {}
    for number, name in enumerate(names):
        blame = None
        for column, rate in enumerate(rates[number]):
            usual = [its[column].share for its in rates if its[column].of >= least]
            if rate.of < least or name in settings.trusted or blame:
                continue
            if _highest_likely(rate, DOUBT / tests) < settings.least_agreement * median_high(usual):
                blame = _blame(labels[column - 1] if column else None, rate, median_high(usual))
        mine = votes.voter == number
        found[name] = AnnotatorGrade(
            opinions=int(mine.sum()),
            shared=_shared(votes, mine),
            agreement=rates[number][0].share,
            weight=float(result.right[number]),
            quarantined=blame,
        )
    return found


def _rates(votes: Votes, result: Agreed, comparable: npt.NDArray[np.bool_], annotators: int) -> list[list[_Rate]]:
    """Of each annotator the agreement over all texts, then over those that the others hold to be of each label."""
    compared = votes.select(comparable)
    others = result.without[: len(comparable)][comparable]
    held = others[np.arange(len(others)), compared.label]
    found = []
    for number in range(annotators):
        mine = compared.voter == number
        of = others[mine].sum(axis=0)
        same = np.bincount(compared.label[mine], held[mine], minlength=votes.labels)
        found.append([_Rate(float(held[mine].sum()), float(mine.sum())), *map(_Rate, same.tolist(), of.tolist())])
    return found


def _shared(votes: Votes, mine: npt.NDArray[np.bool_]) -> int:
    return int(np.isin(votes.text[mine], votes.text[~mine]).sum())


def _blame(label: str | None, rate: _Rate, usual: float) -> str:
    what = "all texts" if label is None else f"texts that the others hold to be {label!r}"
    return f"agrees with the others on {rate.share:.0%} of {what} ({rate.of:.0f} compared), where {usual:.0%} is usual"
