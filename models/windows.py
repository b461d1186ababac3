"""Long texts: read through overlapping windows, and the windows' scores merged into one row.

A text that does not fit a model is read in windows of `max_tokens` that share a quarter of their tokens, so that what
one window cuts in two the next one holds whole. Which row stands for the text is the task's rule:

mean   the mean of the windows' rows, weighted by their tokens: for what a whole text conveys, such as its tone
max    the row of the window in which the labels that alert score highest together: for what one sentence can reveal
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

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


class TextWindows(NamedTuple):
    """The windows of many texts, one after the other."""

    ids: list[list[int]]  # token ids of each window, special tokens included
    ends: list[int]  # of each text, where its windows end in `ids`

    @property
    def spans(self) -> list[range]:
        """Which windows are each text's own, at least one."""
        return [range(start, end) for start, end in pairwise([0, *self.ends])]

    @property
    def texts(self) -> list[int]:
        """Which text each window is of."""
        return [text for text, span in enumerate(self.spans) for _ in span]


def sayable(text: str) -> str:
    """The text, halves of surrogate pairs replaced: JSON can carry them, tokenisers refuse them."""
    return text.encode("utf-8", "replace").decode()


def windows_of(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> TextWindows:
    """The windows that a model which reads `max_tokens` serves these texts by."""
    tokenizer.enable_truncation(max_tokens, stride=overlap_tokens(max_tokens))
    most_chars = MAX_WINDOWS * max_tokens * MAX_CHARS_A_TOKEN
    windows = []
    for text in texts:
        encoding = tokenizer.encode(sayable(text[:most_chars]))
        own = [encoding, *encoding.overflowing[: MAX_WINDOWS - 1]]
        windows.append([window.ids[: sum(window.attention_mask)] for window in own])  # a tokeniser may pad the last
    return TextWindows([ids for own in windows for ids in own], list(accumulate(map(len, windows))))


def merge_all(rows: Floats, windows: TextWindows, rule: Rule, alert_columns: Sequence[int]) -> Floats:
    """One row a text [texts, labels] from the rows [windows, labels] of all windows."""
    if len(rows) == len(windows.ends):
        return rows
    lengths = [len(ids) for ids in windows.ids]
    merged = [
        merge(rows[span.start : span.stop], lengths[span.start : span.stop], rule, alert_columns)
        for span in windows.spans
    ]
    return np.stack(merged)
