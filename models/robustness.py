"""What a classifier loses when texts come as people and systems really write them: a table of drops."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from models.classifier import Classifier
from models.evaluation import Judged, macro_f1
from models.perturbations import changes, contradicted, perturbed

POLAR = frozenset({"positive", "negative"})  # labels of which a contradicted text cannot have the one it had
Progress = Callable[[str, int, int], None]

Ints = npt.NDArray[np.integer]


class Changed(NamedTuple):
    """One perturbation of n texts: which it changed [n], and the columns [n] a classifier chose for them after it."""

    name: str
    changed: npt.NDArray[np.bool_]
    chosen: Ints


class Drop(BaseModel):
    """One perturbation of all texts. Rates in [0, 1]; a drop is what is lost against the texts as they were."""

    model_config = ConfigDict(frozen=True)

    name: str
    changed: int  # texts it found something to change in
    accuracy: float
    macro_f1: float
    accuracy_drop: float
    macro_f1_drop: float
    label_changed: float  # of the changed texts, those that got another label


class Robustness(BaseModel):
    """All drops, and the worst of them in accuracy or macro-F1.

    `contradictions_followed` is apart from them: of texts rightly called positive or negative, the share that lose that
    label when "It is not true that" stands before them. None where the labels are others.
    """

    model_config = ConfigDict(frozen=True)

    seed: int
    n: int
    worst_drop: float
    drops: tuple[Drop, ...]
    contradictions_followed: float | None


def robustness(classifier: Classifier, judged: Judged, seed: int, progress: Progress) -> Robustness:
    """Score every text once for each perturbation; the same seed gives the same texts."""
    texts = [example.text for example in judged.examples]
    drops = [_drop(judged, one) for one in answers_to_changed(classifier, texts, judged.chosen, seed, progress)]
    progress("robustness: contradictions", len(drops), len(drops) + 1)
    return Robustness(
        seed=seed,
        n=len(texts),
        worst_drop=max(max(one.accuracy_drop, one.macro_f1_drop) for one in drops),
        drops=tuple(drops),
        contradictions_followed=_followed(classifier, judged),
    )


def answers_to_changed(
    classifier: Classifier, texts: Sequence[str], chosen: Ints, seed: int, progress: Progress
) -> Iterator[Changed]:
    """What a classifier that chose the columns `chosen` [n] for texts chooses after each perturbation of them."""
    named = changes(texts)
    for done, (name, change) in enumerate(named.items()):
        progress(f"robustness: {name}", done, len(named) + 1)
        after = perturbed(texts, name, change, seed)
        changed = np.array([one != other for one, other in zip(texts, after, strict=True)])
        now = chosen.copy()
        if changed.any():
            rows = np.flatnonzero(changed).tolist()
            now[rows] = classifier.classify([after[row] for row in rows]).argmax(axis=1)
        yield Changed(name, changed, now)


def _drop(judged: Judged, found: Changed) -> Drop:
    name, changed, chosen = found
    accuracy = float((chosen == judged.targets).mean())
    f1 = macro_f1(judged.targets, chosen, judged.labels)
    return Drop(
        name=name,
        changed=int(changed.sum()),
        accuracy=accuracy,
        macro_f1=f1,
        accuracy_drop=float(judged.correct.mean()) - accuracy,
        macro_f1_drop=macro_f1(judged.targets, judged.chosen, judged.labels) - f1,
        label_changed=float((chosen != judged.chosen)[changed].mean()) if changed.any() else 0.0,
    )


def _followed(classifier: Classifier, judged: Judged) -> float | None:
    polar = np.array([label.lower() in POLAR for label in judged.labels])
    rows = np.flatnonzero(judged.correct & polar[judged.targets])
    if not len(rows):
        return None
    chosen = classifier.classify([contradicted(judged.examples[row].text) for row in rows]).argmax(axis=1)
    return float((chosen != judged.targets[rows]).mean())
