"""Long texts: read through overlapping windows, and the windows' scores merged into one row.

A text that does not fit a model is read in windows of `max_tokens` that share a quarter of their tokens, so that what
one window cuts in two the next one holds whole. Which row stands for the text is the task's rule:

mean   the mean of the windows' rows, weighted by their tokens: for what a whole text conveys, such as its tone
max    the row of the window in which the labels that alert score highest together: for what one sentence can reveal
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Rule = Literal["mean", "max"]
Floats = npt.NDArray[np.float32]

MAX_WINDOWS = 32  # of one text; at 96 tokens a window that is about 1,700 words
MAX_CHARS_A_TOKEN = 16  # a text is read as far as all windows reach at so many: the tokeniser takes 0.4 s for 1 MB


def overlap_tokens(max_tokens: int) -> int:
    """How many tokens two neighbouring windows share."""
    return max_tokens // 4


def merge(rows: Floats, lengths: Sequence[int], rule: Rule, alert_columns: Sequence[int]) -> Floats:
    """One row [labels] for a text from the rows [windows, labels] of its windows, at least one of them.

    `lengths` are the windows' tokens. Where `alert_columns` is empty (the release knows none of the labels that alert)
    the rule "max" has nothing to look for, and the mean is taken.
    """
    if len(rows) == 1:
        only: Floats = rows[0]
        return only
    if rule == "max" and alert_columns:
        highest: Floats = rows[rows[:, alert_columns].sum(axis=1).argmax()]
        return highest
    weights = np.asarray(lengths, np.float32)
    mean: Floats = (weights / weights.sum()) @ rows
    return mean
