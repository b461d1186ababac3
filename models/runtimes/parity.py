"""Whether a runtime gives the scores a release was made with: the gate before it serves.

Compared are probabilities, per head: a logit that is far off in a head that is certain changes nothing anyone sees.
"""

from collections.abc import Sequence

import numpy as np

from models.runtimes.protocol import Floats
from models.softmax import softmax

# Largest differences found over 3,356 held-out texts (three tasks, MiniLM-L6): float32 sums in another order 5e-6; the
# encoder in bfloat16 0.028 with OpenVINO and 0.016 with PyTorch (99th percentile 0.009), and 2 labels in 3,356 changed,
# both between two labels less than 0.03 apart. A graph with other weights, or one wrong operator, is off by far more.
EXACT = 1e-3
ROUNDED = 0.05
DIFFERENT_LABELS = 0.005  # of the texts, at most


def problem(logits: Floats, expected: Floats, tolerance: float, heads: Sequence[slice] = ()) -> str | None:
    """Why logits [n, columns] are not the expected ones, or None. Without `heads` all columns are one head's."""
    if logits.shape != expected.shape:
        return f"gives logits of shape {logits.shape}, expected {expected.shape}"
    if not np.isfinite(logits).all():
        return "gives scores that are not numbers"
    for columns in heads or (slice(None),):
        ours, theirs = softmax(logits[:, columns]), softmax(expected[:, columns])
        different = float((ours.argmax(axis=1) != theirs.argmax(axis=1)).mean())
        if different > DIFFERENT_LABELS:
            return f"gives another label for {different:.1%} of the golden texts, allowed {DIFFERENT_LABELS:.1%}"
        distance = float(np.abs(ours - theirs).max(initial=0.0))
        if distance > tolerance:
            return f"gives probabilities up to {distance:.2g} from the golden ones, allowed {tolerance:g}"
    return None
