"""A judge of labels: what the other texts teach about one, by a logistic regression on text vectors.

Who grades an annotator must not have learned from them: a campaign of one annotator's own wording would teach it that
the campaign is right. Once the annotators are graded, the judge of single texts learns from all of them, as honest
corrections of one mistake confirm each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.label_errors import FOLDS, Floats, Suspect, Targets, label_errors, out_of_fold, taught

FEW = 10  # texts of a label: with fewer the judge does not know it
Vectors = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


class Lessons(NamedTuple):
    """What a judge can learn from: trusted texts first, then those in question; labels are numbers from 0."""

    known: Vectors  # [n, width]
    known_targets: Targets
    asked: Vectors  # [m, width]
    asked_targets: Targets
    labels: int


class Judgment(NamedTuple):
    """What a judge says of the texts in question."""

    probabilities: Floats  # [m, labels]; all 0 where there was nothing to learn from
    knows: npt.NDArray[np.bool_]  # [m, labels]: whether it had FEW texts of the label or more to learn from


def outsider(lessons: Lessons, annotators: Sequence[Sequence[int]], progress: Progress | None = None) -> Judgment:
    """Each text judged by what is known and by the texts of other annotators; `annotators` [m] are its own, numbered.

    Annotators are dealt into at most FOLDS groups, and one judge learns without each; the mean is taken for a text of
    several. Raises MissingExtra without scikit-learn.
    """
    group_of = _dealt(annotators)
    groups = [{group_of[name] for name in names} for names in annotators]
    probabilities = np.zeros((len(annotators), lessons.labels))
    knows = np.ones((len(annotators), lessons.labels), bool)
    count = max(group_of.values(), default=-1) + 1
    for group in range(count):
        if progress is not None:
            progress(f"judge {group + 1}/{count}", group, count)
        inside = np.array([group in its for its in groups])
        vectors = np.concatenate([lessons.known, lessons.asked[~inside]])
        targets = np.concatenate([lessons.known_targets, lessons.asked_targets[~inside]])
        probabilities[inside] += taught(vectors, targets, lessons.asked[inside], lessons.labels)
        knows[inside] &= np.bincount(targets, minlength=lessons.labels) >= FEW
    return Judgment(probabilities / np.array([[len(its)] for its in groups]).reshape(-1, 1), knows)


def _dealt(annotators: Sequence[Sequence[int]]) -> dict[int, int]:
    """The group of each annotator, who with the most texts first, always into the group with the fewest."""
    names = [name for its in annotators for name in its]
    found: dict[int, int] = {}
    sizes = [0] * min(FOLDS, len(set(names)))
    for name in sorted(set(names), key=lambda name: (-names.count(name), name)):
        found[name] = sizes.index(min(sizes))
        sizes[found[name]] += names.count(name)
    return found


def insider(
    lessons: Lessons, most_lost: float, seed: int, progress: Progress | None = None
) -> tuple[Judgment, list[Suspect]]:
    """Each text judged by all others, and which of those in question are probably labelled wrongly.

    The suspects are those of `models.label_errors`, their rows counted from the first text in question, but only by
    margins so large that of the known texts no more than `most_lost` (0..1) would be suspected: where vectors do not
    part the labels well, many right ones look wrong. With too little to learn from nothing is judged and nobody
    suspected. Raises MissingExtra without scikit-learn.
    """
    targets = np.concatenate([lessons.known_targets, lessons.asked_targets])
    counts = np.bincount(targets, minlength=lessons.labels)
    knows = np.tile(counts >= FEW, (len(lessons.asked), 1))
    if len(targets) < 2 * FOLDS or (counts > 0).sum() < 2:
        return Judgment(np.zeros(knows.shape), knows), []
    present, column_of = np.unique(targets, return_inverse=True)
    found = out_of_fold(np.concatenate([lessons.known, lessons.asked]), column_of, FOLDS, seed, progress)
    probabilities = np.zeros((len(targets), lessons.labels))
    probabilities[:, present] = found
    first = len(lessons.known)
    suspects = label_errors(found, column_of)
    blameless = [one.margin for one in suspects if one.row < first]  # the largest first
    allowed = int(most_lost * first)
    least = blameless[allowed] if len(blameless) > allowed else 0.0
    surest = [
        Suspect(one.row - first, int(present[one.given]), int(present[one.suggested]), one.margin)
        for one in suspects
        if one.row >= first and one.margin > least and counts[present[one.given]] >= FEW
    ]
    return Judgment(probabilities[first:], knows), surest
