"""The same figures for parts of the data: by length, by source, by whether the names in a text were trained on."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from models.calibration import expected_calibration_error
from models.entities import common_words, names
from models.evaluation import Judged, macro_f1

LENGTHS = (5, 10, 20, 40, 80, 160)  # words: the last of each slice
MOST_VALUES = 20  # of one facet: beyond them the rarest are one slice


class Slice(BaseModel):
    """Figures of one part of the data; few examples say little, so `n` stands beside them."""

    model_config = ConfigDict(frozen=True)

    by: str
    value: str
    n: int
    accuracy: float
    macro_f1: float
    ece: float


def slices(judged: Judged, facets: Mapping[str, Sequence[str]]) -> list[Slice]:
    """The figures for every value of every facet, values by the number they begin with, then by name.

    A facet gives each example, in their order, the value of its slice.
    """
    found = []
    for by, values in facets.items():
        held = np.array(values)
        for value in sorted(set(values), key=_natural):
            rows = held == value
            found.append(
                Slice(
                    by=by,
                    value=value,
                    n=int(rows.sum()),
                    accuracy=float(judged.correct[rows].mean()),
                    macro_f1=macro_f1(judged.targets[rows], judged.chosen[rows], judged.labels),
                    ece=expected_calibration_error(judged.confidence[rows], judged.correct[rows]),
                )
            )
    return found


def _natural(value: str) -> tuple[int, str]:
    number = re.match(r"\d{1,9}", value)
    return (int(number[0]) if number else 0, value)


def by_length(texts: Sequence[str]) -> list[str]:
    """Each text's slice by its words, such as "11 to 20 words"."""
    return [_length(len(text.split())) for text in texts]


def _length(words: int) -> str:
    first = 0
    for last in LENGTHS:
        if words <= last:
            return f"{first} to {last} words"
        first = last + 1
    return f"{first} words and more"


def by_value(values: Sequence[str]) -> list[str]:
    """Values of a column; the rarest beyond MOST_VALUES are one slice."""
    kinds, counts = np.unique(np.array(values), return_counts=True)
    kept = {str(kinds[place]) for place in np.argsort(-counts, kind="stable")[:MOST_VALUES]}
    return [value if value in kept else "(others)" for value in values]


def by_entities(texts: Sequence[str], train_texts: Sequence[str]) -> list[str]:
    """Whether a text names something, and whether the training texts name all of it too: see `models.entities`."""
    common = common_words([*texts, *train_texts])
    known = frozenset(name for text in train_texts for name in names(text, common))
    return [_entities(names(text, common), known) for text in texts]


def _entities(found: frozenset[str], known: frozenset[str]) -> str:
    if not found:
        return "no name"
    return "all names seen in training" if found <= known else "a name not seen in training"
