"""Whether a runtime gives the scores a release was made with: the gate before it serves.

Compared are probabilities, per head: a logit that is far off in a head that is certain changes nothing anyone sees.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.releases import Precision
from models.runtimes.protocol import Floats
from models.softmax import softmax

# Largest differences found over 3,356 held-out texts (three tasks, MiniLM-L6): float32 sums in another order 5e-6; the
# encoder in bfloat16 0.028 with OpenVINO and 0.016 with PyTorch (99th percentile 0.009), and 2 labels in 3,356 changed,
# both between two labels less than 0.03 apart. A graph with other weights, or one wrong operator, is off by far more.
EXACT = 1e-3
ROUNDED = 0.05
DIFFERENT_LABELS = 0.005  # of the texts, at most

# A graph of fewer bits is off by itself. It is let in by less than this (`models.compression`): processors round sums
# in int8 differently, and no release should be refused where it is served for a hair more than where it was made.
OF_PRECISION: dict[Precision, float] = {"fp32": EXACT, "fp16": 0.02, "int8-dynamic": 0.3, "int8-static": 0.3}
DIFFERENT_INT8_LABELS = 0.015


class Distance(NamedTuple):
    """How far probabilities are from the expected ones: the share of other labels, and the largest difference."""

    different_labels: float
    furthest: float


def distance(logits: Floats, expected: Floats, columns: slice = slice(None)) -> Distance:
    """Of the logits [n, columns] of one head from the expected ones."""
    ours, theirs = softmax(logits[:, columns]), softmax(expected[:, columns])
    different = float((ours.argmax(axis=1) != theirs.argmax(axis=1)).mean())
    return Distance(different, float(np.abs(ours - theirs).max(initial=0.0)))


def allowance(tolerance: float, precision: Precision) -> tuple[float, float]:
    """How far a runtime of this tolerance may be with a graph of this precision: probabilities, share of labels."""
    labels = DIFFERENT_INT8_LABELS if precision.startswith("int8") else DIFFERENT_LABELS
    return max(tolerance, OF_PRECISION[precision]), labels


def problem(
    logits: Floats,
    expected: Floats,
    tolerance: float,
    heads: Sequence[slice] = (),
    different_labels: float = DIFFERENT_LABELS,
) -> str | None:
    """Why logits [n, columns] are not the expected ones, or None. Without `heads` all columns are one head's."""
    if logits.shape != expected.shape:
        return f"gives logits of shape {logits.shape}, expected {expected.shape}"
    if not np.isfinite(logits).all():
        return "gives scores that are not numbers"
    for columns in heads or (slice(None),):
        different, furthest = distance(logits, expected, columns)
        if different > different_labels:
            return f"gives another label for {different:.1%} of the golden texts, allowed {different_labels:.1%}"
        if furthest > tolerance:
            return f"gives probabilities up to {furthest:.2g} from the golden ones, allowed {tolerance:g}"
    return None
