"""How good a release is at telling what is out of scope, by its label for it and by its threshold."""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from models.classifier import Head
from models.out_of_scope import Separation, separation

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


class OutOfScope(BaseModel):
    """How texts about none of the labels are told from the others; `by_method` is before any threshold."""

    model_config = ConfigDict(frozen=True)

    n_inside: int
    n_outside: int
    in_scope_accuracy: float  # of the texts in scope: told to be so, and with the right label
    recall: float  # of the texts out of scope: told to be so, by their label or by the release's threshold
    false_acceptance: float
    false_rejection: float
    by_method: dict[str, Separation]

    def with_methods(self, more: dict[str, Separation]) -> Self:
        """The same figures, and how further methods separate."""
        return self.model_copy(update={"by_method": self.by_method | more})


class Texts(NamedTuple):
    """What a head says of some texts: probabilities [n, labels] and how familiar they are [n]."""

    probabilities: Floats
    familiarity: Floats


def highest_inside(head: Head, texts: Texts) -> Floats:
    """The highest probability among the labels in scope [n] (Hendrycks & Gimpel 2017)."""
    inside = texts.probabilities
    if head.outside is not None:
        inside = np.delete(inside, head.outside, axis=1)
    highest: Floats = inside.max(axis=1)
    return highest


def scope_grades(head: Head, inside: Texts, outside: Texts, right: Bools) -> OutOfScope | None:
    """The figures; `right` [n] says which texts inside have the right label. None without texts on both sides."""
    if not len(inside.familiarity) or not len(outside.familiarity):
        return None
    accepted = ~head.is_outside(*inside)
    recall = float(head.is_outside(*outside).mean())
    return OutOfScope(
        n_inside=len(accepted),
        n_outside=len(outside.familiarity),
        in_scope_accuracy=float((accepted & right).mean()),
        recall=recall,
        false_acceptance=1 - recall,
        false_rejection=float((~accepted).mean()),
        by_method={
            "energy": separation(inside.familiarity, outside.familiarity),
            "max softmax": separation(highest_inside(head, inside), highest_inside(head, outside)),
        },
    )
