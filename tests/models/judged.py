"""What a classifier might have said, made up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.datasets import Example
from models.evaluation import Judged


def judged_of(labels: Sequence[str], rows: Sequence[Sequence[float]], texts: Sequence[str] | None = None) -> Judged:
    """Examples with these true labels and these scores; the label set is that of the examples, sorted."""
    names = tuple(sorted(set(labels)))
    probabilities = np.array(rows, np.float32)
    return Judged(
        labels=names,
        examples=tuple(map(Example, texts or [f"text {row}" for row in range(len(labels))], labels)),
        targets=np.array([names.index(label) for label in labels]),
        probabilities=probabilities,
        uncalibrated=probabilities,
        familiarity=np.zeros(len(labels)),
        strangers=(),
        stranger_probabilities=np.zeros((0, len(names))),
        stranger_familiarity=np.zeros(0),
        seconds=1.0,
    )
