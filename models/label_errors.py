"""Labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068).

A classifier that has not seen an example says how probable each label is. A label is held confidently where its
probability is at least the mean of those examples that carry it. Counting what is given against what is held
confidently estimates how many examples of each label belong under which other; so many are named, the surest first.
The words of the paper: t_j the thresholds, C the confident joint, Q its estimate of the joint distribution; named are
those that "prune by noise rate" would remove.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.errors import DATA_EXTRA, BadDataset, MissingExtra

FOLDS = 5
INVERSE_PENALTY = 10.0  # of the regression's weights, on vectors of length 1
MOST_STEPS = 300

Floats = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]


class Suspect(NamedTuple):
    """A row whose label is probably another."""

    row: int
    given: int  # columns of the probabilities
    suggested: int
    margin: float  # probability of the suggested label less that of the given one, -1..1; the larger, the surer


_NONE = Suspect(-1, -1, -1, 0.0)


def out_of_fold(
    vectors: npt.NDArray[np.float32],
    targets: Targets,
    folds: int = FOLDS,
    seed: int = 7,
    progress: Callable[[str, int, int], None] | None = None,
) -> Floats:
    """Probabilities [n, labels] of each text's labels by a logistic regression that did not learn from that text.

    `vectors` [n, width] are text vectors, `targets` [n] numbers of labels from 0, each occurring. The folds share out
    every label evenly; one that occurs once is unknown to the fold it is in and has probability 0 there.
    Raises BadDataset for too few examples, MissingExtra without scikit-learn.
    """
    labels = int(targets.max()) + 1 if len(targets) else 0
    if labels < 2 or len(targets) < 2 * folds:
        raise BadDataset(f"label errors need two labels and {2 * folds} examples, found {labels} and {len(targets)}")
    fold_of = _folds(targets, folds, seed)
    probabilities = np.zeros((len(targets), labels))
    for fold in range(folds):
        if progress is not None:
            progress(f"fold {fold + 1}/{folds}", fold, folds)
        held = fold_of == fold
        probabilities[held] = taught(vectors[~held], targets[~held], vectors[held], labels)
    return probabilities


def taught(vectors: npt.NDArray[np.float32], targets: Targets, asked: npt.NDArray[np.float32], labels: int) -> Floats:
    """Probabilities [m, labels] of other texts, `asked` [m, width], by a logistic regression that learns from these.

    A label that is none of the targets has probability 0, and the only one there is 1. Raises MissingExtra without
    scikit-learn.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtra(f"finding label errors needs scikit-learn: {DATA_EXTRA}") from error
    probabilities = np.zeros((len(asked), labels))
    present = np.unique(targets)
    if len(present) == 1:
        probabilities[:, present] = 1.0
    elif len(present) and len(asked):
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=MOST_STEPS, tol=1e-3)
        model.fit(_directions(vectors), targets)
        probabilities[:, present] = model.predict_proba(_directions(asked))
    return probabilities


def _directions(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: npt.NDArray[np.float32] = np.divide(vectors, np.where(lengths == 0, 1, lengths), dtype=np.float32)
    return directions


def _folds(targets: Targets, folds: int, seed: int) -> Targets:
    """The fold of each row: every label's rows dealt out in turn, in random order, on from where the last one ended."""
    chooser = np.random.default_rng(seed)
    fold_of = np.zeros(len(targets), np.int64)
    dealt = 0
    for label in range(int(targets.max()) + 1):
        rows = chooser.permutation(np.flatnonzero(targets == label))
        fold_of[rows] = (dealt + np.arange(len(rows))) % folds
        dealt += len(rows)
    return fold_of


def confident_joint(probabilities: Floats, targets: Targets) -> npt.NDArray[np.int64]:
    """C [labels, labels]: how many examples given as the row's label are held confidently to be the column's."""
    labels = probabilities.shape[1]
    thresholds = np.array(
        [probabilities[targets == label, label].mean() if (targets == label).any() else 1.0 for label in range(labels)]
    )
    held = np.where(probabilities >= np.maximum(thresholds, np.finfo(float).tiny), probabilities, -1.0)
    sure = held.max(axis=1) >= 0
    joint = np.zeros((labels, labels), np.int64)
    np.add.at(joint, (targets[sure], held.argmax(axis=1)[sure]), 1)
    return joint


def joint_counts(probabilities: Floats, targets: Targets) -> Floats:
    """n * Q [labels, labels]: the confident joint, calibrated so that each row adds up to the label's examples."""
    joint = confident_joint(probabilities, targets).astype(float)
    given = np.bincount(targets, minlength=probabilities.shape[1]).astype(float)
    unknown = joint.sum(axis=1) == 0  # of such a label nothing is known but that its examples carry it
    joint[unknown, unknown] = 1.0
    scaled: Floats = joint / joint.sum(axis=1, keepdims=True) * given[:, None]
    return scaled


def label_errors(probabilities: Floats, targets: Targets) -> list[Suspect]:
    """The examples whose label is probably wrong, the surest first.

    `probabilities` [n, labels] must come from models that did not see the example: see `out_of_fold`. Of each pair of
    labels as many are named as the joint counts say, those with the largest margin, and none whose given label is the
    likeliest after all.
    """
    counts = np.rint(joint_counts(probabilities, targets)).astype(int)
    best: dict[int, Suspect] = {}
    for given, suggested in np.argwhere(counts > 0):
        if given == suggested:
            continue
        rows = np.flatnonzero(targets == given)
        margins = probabilities[rows, suggested] - probabilities[rows, given]
        for place in np.argsort(-margins, kind="stable")[: counts[given, suggested]]:
            suspect = Suspect(int(rows[place]), int(given), int(suggested), float(margins[place]))
            if suspect.margin > best.get(suspect.row, _NONE).margin:
                best[suspect.row] = suspect
    return sorted(best.values(), key=lambda suspect: (-suspect.margin, suspect.row))
