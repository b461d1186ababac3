"""Which words a score rests on, by occlusion: the score again with one word left out, for every word, in one batch.

A word's weight is how much the score falls without it: above 0 it speaks for the label, below 0 against it. No gradient
is needed, so any runtime that serves can explain (Zeiler and Fergus 2014, arXiv 1311.2901, section 4.2; for words Li et
al. 2016, arXiv 1612.08220). Left out are the word's token ids: what surrounds it is read as before.

The work is bounded: a text of more words than `most_words` is taken in that many runs of neighbouring words, and each
is left out only of the windows it is in. Windows overlap by a quarter, so a short run is in two of them at most.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from models.classifier import Classifier, Span
from models.runtimes import Floats
from models.words import trimmed, words

MOST_WORDS = 128


class Word(NamedTuple):
    """`text[start:end]` in characters, and how much the score falls without it (in [-1, 1])."""

    start: int
    end: int
    weight: float


class Explanation(NamedTuple):
    """The words of a text in their order, and what each does for the score of the label."""

    label: str
    score: float
    words: list[Word]


class Occlusion(NamedTuple):
    """What to run to explain a text, in one batch.

    `windows` are first the text's own, `whole` of them, then for each of `left_out` (which word, in which window) that
    window without that word.
    """

    words: list[Span]
    windows: list[list[int]]
    whole: int
    left_out: list[tuple[int, int]]


def explain(classifier: Classifier, text: str, label: str | None = None, most_words: int = MOST_WORDS) -> Explanation:
    """What the score of a label rests on; without a label, of the best one.

    Raises ValueError for a label that the release does not know.
    """
    if label is not None and label not in classifier.labels:
        raise ValueError(f"label {label!r} is not among the release's: {', '.join(classifier.labels)}")
    model = classifier.model
    occlusion = occlude(text, model.encode([text])[0].windows, model.spans(text), most_words)
    rows = classifier.rows(occlusion.windows)
    lengths = [len(window) for window in occlusion.windows[: occlusion.whole]]
    merged = classifier.merged(rows[: occlusion.whole], lengths)
    column = int(merged.argmax()) if label is None else classifier.labels.index(label)
    weights = weigh(occlusion, rows, column, lambda of_windows: classifier.merged(of_windows, lengths))
    found = [Word(start, end, weight) for (start, end), weight in zip(occlusion.words, weights, strict=True)]
    return Explanation(classifier.labels[column], float(merged[column]), found)


def occlude(
    text: str, windows: Sequence[Sequence[int]], spans: Sequence[Sequence[Span]], most_words: int = MOST_WORDS
) -> Occlusion:
    """The windows of a text with each of its words left out; `spans` say where each token of each window stands."""
    found = _grouped(words(text, (span for of_window in spans for span in of_window)), most_words)
    batch, left_out = [list(window) for window in windows], []
    for window, (ids, of_window) in enumerate(zip(windows, spans, strict=True)):
        owners = _owners(text, of_window, found)
        for word in sorted({owner for owner in owners if owner is not None}):
            batch.append([one for one, owner in zip(ids, owners, strict=True) if owner != word])
            left_out.append((word, window))
    return Occlusion(found, batch, len(windows), left_out)


def weigh(occlusion: Occlusion, rows: Floats, column: int, merged: Callable[[Floats], Floats]) -> list[float]:
    """The weight of each word from the probabilities [n, labels] of an occlusion's windows.

    `merged` makes one row [labels] for a text of the rows of its windows.
    """
    whole = rows[: occlusion.whole]
    changed: dict[int, Floats] = {}
    for row, (word, window) in zip(rows[occlusion.whole :], occlusion.left_out, strict=True):
        changed.setdefault(word, whole.copy())[window] = row
    score = merged(whole)[column]
    return [float(score - merged(changed[word])[column]) for word in range(len(occlusion.words))]


def _grouped(found: Sequence[Span], most: int) -> list[Span]:
    """The words, or as many runs of neighbouring words as there may be."""
    if len(found) <= most:
        return list(found)
    edges = np.linspace(0, len(found), most + 1).round().astype(int).tolist()
    return [(found[first][0], found[last - 1][1]) for first, last in pairwise(edges)]


def _owners(text: str, of_window: Sequence[Span], found: Sequence[Span]) -> list[int | None]:
    """Which word each token of a window is of; special tokens and white space are of none."""
    firsts = [start for start, _ in found]
    places = (trimmed(text, span) for span in of_window)
    return [bisect_right(firsts, start) - 1 if start < end else None for start, end in places]
