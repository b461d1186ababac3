"""Texts that are about none of a model's labels: how familiar a text is, and from where on it counts as in scope.

Served is the free energy of the logits (Liu et al. 2020, "Energy-based Out-of-distribution Detection",
arXiv:2010.03759): it costs one sum of exponentials a text. Where the training data have a label for what is out of
scope, its logit is taken off: the log-odds of in scope against out of scope. The distances between text vectors
(Mahalanobis: Lee et al. 2018, arXiv:1807.03888; nearest neighbour: Sun et al. 2022, arXiv:2204.06507) need
the training texts; `models.embeddings` gives the vectors, and `evaluate` compares.

Higher is more familiar, for every method.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from models.ranking import auc

OUTSIDE_LABELS = ("out_of_scope", "out-of-scope", "oos")  # by these names data say that a text is out of scope
DIGITS = 6  # scores are published with so many, and judged by what is published
TURNED_AWAY = 0.05  # of the texts in scope: where methods are compared (the usual FPR at 95% TPR, read the other way)
NEIGHBOUR = 5  # the k-th nearest training text; few, as a label may have ten examples
SHRINKAGE = 0.1  # of a covariance towards a multiple of the identity: few examples say little of 384 dimensions

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


class Scope(BaseModel):
    """From where on a text is in scope, and what that came to on the development examples it was chosen on."""

    model_config = ConfigDict(frozen=True)

    method: Literal["energy"] = "energy"
    familiar_from: float = Field(allow_inf_nan=False, description="a text that is less familiar is out of scope")
    asked_false_acceptance: float = Field(gt=0, lt=1, description="of texts out of scope, expected at most")
    n_outside: int = Field(ge=1)
    false_acceptance: float = Field(ge=0, le=1, description="of the texts out of scope, taken for in scope")
    false_rejection: float = Field(ge=0, le=1, description="of the texts in scope, taken for out of scope")


class Separation(BaseModel):
    """How well a method tells texts in scope from others, whatever the threshold."""

    model_config = ConfigDict(frozen=True)

    auc: float
    recall: float  # of the texts out of scope, found while TURNED_AWAY of those in scope are turned away


def outside_column(labels: Sequence[str]) -> int | None:
    """The column of the label that stands for out of scope, if the release has one."""
    return next((column for column, label in enumerate(labels) if label in OUTSIDE_LABELS), None)


def familiarity(logits: Floats, outside: int | None) -> npt.NDArray[np.float32]:
    """How familiar texts are, [n], from their raw logits [n, labels]; `outside` is the column for out of scope."""
    inside = logits if outside is None else np.delete(logits, outside, axis=1)
    highest = inside.max(axis=1, initial=-np.inf)
    energy = highest + np.log(np.exp(inside - highest[:, None]).sum(axis=1))
    familiar: npt.NDArray[np.float32] = (energy if outside is None else energy - logits[:, outside]).astype(np.float32)
    return familiar


def choose_scope(inside: Floats, outside: Floats, false_acceptance: float, most_turned_away: float) -> Scope | None:
    """The threshold for a false-acceptance rate, from the familiarity of texts in scope [n] and out of scope [m].

    The threshold is the conformal one: accepted is what is more familiar than ceil((m + 1)(1 - rate)) of the m, so that
    the *expected* rate on new texts is at most the one asked for, however few they are. Where that would turn away more
    than `most_turned_away` of the texts in scope, that limit holds instead. None when there are too few texts out of
    scope to promise the rate, or none in scope.
    """
    needed = math.ceil((len(outside) + 1) * (1 - false_acceptance))
    if needed > len(outside) or not len(inside):
        return None
    inside, outside = (np.sort(np.round(one.astype(np.float64), DIGITS)) for one in (inside, outside))
    above = (round(outside[needed - 1] * 10**DIGITS) + 1) / 10**DIGITS
    threshold = min(above, float(inside[math.floor(most_turned_away * len(inside))]))
    return Scope(
        familiar_from=threshold,
        asked_false_acceptance=false_acceptance,
        n_outside=len(outside),
        false_acceptance=float((outside >= threshold).mean()),
        false_rejection=float((inside < threshold).mean()),
    )


def separation(inside: Floats, outside: Floats) -> Separation:
    """How well these values tell the two apart; neither may be empty."""
    values = np.concatenate([inside, outside])
    found = auc(np.arange(len(values)) < len(inside), values)
    assert found is not None, "one of the two is empty"  # noqa: S101
    threshold = np.sort(inside)[math.floor(TURNED_AWAY * len(inside))]
    return Separation(auc=found, recall=float((outside < threshold).mean()))


def mahalanobis(vectors: Floats, known: Floats, targets: Ints) -> Floats:
    """Minus the squared distance to the nearest label's mean, under the covariance that all labels share; [n].

    `vectors` [n, width] are judged; `known` [m, width] with their labels' columns `targets` [m] are the training texts.
    """
    means = np.stack([known[targets == column].mean(axis=0) for column in np.unique(targets)])
    residuals = known - means[np.searchsorted(np.unique(targets), targets)]
    covariance = residuals.T @ residuals / len(known)
    even = np.eye(len(covariance)) * (np.trace(covariance) / len(covariance) or 1.0)
    whitening = np.linalg.cholesky(np.linalg.inv((1 - SHRINKAGE) * covariance + SHRINKAGE * even))
    white, white_means = vectors @ whitening, means @ whitening
    squares: Floats = (white**2).sum(axis=1)[:, None] - 2 * white @ white_means.T + (white_means**2).sum(axis=1)
    nearest: Floats = squares.min(axis=1)
    return -nearest


def nearest_neighbour(vectors: Floats, known: Floats, neighbour: int = NEIGHBOUR) -> Floats:
    """The cosine of each vector [n, width] and its k-th nearest training text among `known` [m, width]; [n]."""
    near = _unit(vectors) @ _unit(known).T
    kth = min(neighbour, len(known))
    return np.partition(near, len(known) - kth, axis=1)[:, len(known) - kth]


def _unit(vectors: Floats) -> Floats:
    lengths: Floats = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors / lengths
