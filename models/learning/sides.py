"""Champion and candidate on the same labelled texts, as they are served, though they may not know the same labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.classifier import Classifier
from models.datasets import Example, data_hash
from models.evaluation import target_indices, without_strangers
from models.learning.paired import macro_f1_over
from models.learning.verdict import Changed, Confused, Sample, Seen

MOST_CHANGED = 15  # texts that are kept for a person, of each kind

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


class Answers(NamedTuple):
    """What one release says: columns [n] of the labels of both, the scores [n] of those, strangers told as such [m]."""

    chosen: Ints
    scores: Floats
    strangers_told: Bools


@dataclass(frozen=True)
class Sides:
    """Labelled texts with the answers of both. `labels` are those of either; a label that one does not know it misses.

    Texts out of scope that neither has a label for are the `strangers`, which are to be told as such.
    """

    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    strangers: tuple[Example, ...]
    targets: Ints  # [n]
    before: Answers
    after: Answers

    @property
    def right_before(self) -> Bools:
        """Which texts [n] the champion has right."""
        right: Bools = self.before.chosen == self.targets
        return right

    @property
    def right_after(self) -> Bools:
        """Which texts [n] the candidate has right."""
        right: Bools = self.after.chosen == self.targets
        return right


def sides_of(champion: Classifier, candidate: Classifier, examples: Sequence[Example]) -> Sides:
    """Both answer. Raises BadDataset for no examples, and for a label that neither of them knows."""
    labels = tuple(sorted({*champion.labels, *candidate.labels}))
    inside, strangers = without_strangers(labels, examples)
    targets = target_indices(labels, inside)
    texts = [one.text for one in (*inside, *strangers)]
    before, after = (_answers(one, labels, texts, len(inside)) for one in (champion, candidate))
    return Sides(labels, tuple(inside), tuple(strangers), targets, before, after)


def columns_among(labels: Sequence[str], classifier: Classifier) -> npt.NDArray[np.int64]:
    """Where each of a release's labels is among `labels`."""
    return np.array([labels.index(label) for label in classifier.labels])


def _answers(classifier: Classifier, labels: Sequence[str], texts: Sequence[str], inside: int) -> Answers:
    probabilities, familiarity = classifier.scored(classifier.read(texts))
    chosen = columns_among(labels, classifier)[probabilities.argmax(axis=1)]
    outside = classifier.head.is_outside(probabilities, familiarity)
    return Answers(chosen[:inside], probabilities.max(axis=1)[:inside], outside[inside:])


def sample_of(sides: Sides) -> Sample:
    """The figures of both."""
    once = np.ones((1, len(sides.examples)))
    before, after = (float(macro_f1_over(sides.targets, one.chosen, once)[0]) for one in (sides.before, sides.after))
    return Sample(
        n=len(sides.examples),
        sha256=data_hash([*sides.examples, *sides.strangers]),
        macro_f1_before=before,
        macro_f1_after=after,
        accuracy_before=float(sides.right_before.mean()),
        accuracy_after=float(sides.right_after.mean()),
    )


def seen_of(sides: Sides) -> Seen:
    """All answers by label, and the texts that changed sides, the surest of the candidate's answers first."""
    return Seen(
        before=_confusions(sides, sides.before.chosen),
        after=_confusions(sides, sides.after.chosen),
        gained=_changed(sides, ~sides.right_before & sides.right_after),
        lost=_changed(sides, sides.right_before & ~sides.right_after),
    )


def _confusions(sides: Sides, chosen: Ints) -> tuple[Confused, ...]:
    pairs, times = np.unique(np.column_stack([sides.targets, chosen]), axis=0, return_counts=True)
    return tuple(
        Confused(true=sides.labels[true], given=sides.labels[given], times=int(count))
        for (true, given), count in zip(pairs, times, strict=True)
    )


def _changed(sides: Sides, which: Bools) -> tuple[Changed, ...]:
    rows = np.flatnonzero(which)
    surest = rows[np.argsort(-sides.after.scores[rows], kind="stable")][:MOST_CHANGED]
    return tuple(
        Changed(
            text=sides.examples[row].text,
            label=sides.examples[row].label,
            before=sides.labels[sides.before.chosen[row]],
            after=sides.labels[sides.after.chosen[row]],
            score=float(sides.after.scores[row]),
        )
        for row in surest
    )
