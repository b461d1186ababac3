"""Texts that nobody wrote, put together from those there are, for a teacher to speak of as well.

Half of them begin as one text and go on as another from a word or a pair of words that both hold; in the others some
words are exchanged for words seen between the same two neighbours, or after the same one. What comes out reads like
the data, more or less, and need not be true or even make sense: the teacher says what it is, not the texts it came
from. A student learns the teacher's function from more points of it than there are labels (the idea is that of Tang et
al. 2019, https://arxiv.org/abs/1903.12136, and of TinyBERT, Jiao et al. 2020; the ways of making texts are ours).

Words are those of `models.words`, so scripts that are written without spaces are recombined as well.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from models.datasets import normalised
from models.words import Span, segments

TRIES = 20  # for a text, before data are taken to be too few or too much alike
PAIR_SHARE = 0.7  # of the joints are two words that both texts hold; they read better than those of one
EXCHANGED_SHARE = 0.25  # of the words that could be
SHORTEST, LONGEST = 0.5, 1.3  # times as many words as the shorter of the two texts has, and the longer
FEWEST_WORDS = 4  # of a text that is to be joined with another
EDGE = ""  # stands before the first word and behind the last

Words = list[Span]
Place = tuple[int, int]  # a text's row, and the number of a word in it


class _Read(NamedTuple):
    """The texts, their words as spans, and these in small letters."""

    texts: Sequence[str]
    spans: list[Words]
    words: list[list[str]]


def recombined(texts: Sequence[str], count: int, seed: int, leave_out: Iterable[str] = ()) -> list[str]:
    """`count` texts made of these, or fewer where they give no more; each once, none of these or of `leave_out`.

    Case and spacing make no difference. The same texts in the same order and the same seed give the same.
    """
    rng = random.Random(f"recombined/{seed}")  # noqa: S311
    spans = [segments(text) for text in texts]
    words = [[text[start:end].lower() for start, end in its] for text, its in zip(texts, spans, strict=True)]
    read = _Read(texts, spans, words)
    seen = {normalised(text) for text in chain(texts, leave_out)}
    made: list[str] = []
    for tried, wanted in ((_joined(read, rng), count // 2), (_exchanged(read, rng), count)):
        for _ in range(TRIES * (wanted - len(made))):
            if len(made) == wanted:
                break
            text = next(tried, None)
            if text is None:
                break
            if text and (same := normalised(text)) not in seen:
                seen.add(same)
                made.append(text)
    return made


def _joined(read: _Read, rng: random.Random) -> Iterator[str]:
    """Beginnings of texts with ends of others; empty where a try led to nothing, none at all without texts for it."""
    places = _places(read.words)
    rows = [row for row, words in enumerate(read.words) if len(words) >= FEWEST_WORDS]
    while len(rows) > 1:
        row = rng.choice(rows)
        words = read.words[row]
        at = rng.randrange(1, len(words) - 2)
        joint = tuple(words[at : at + 2]) if rng.random() < PAIR_SHARE else (words[at],)
        other, there = rng.choice(places[joint])
        length, lengths = at + len(read.words[other]) - there, sorted((len(words), len(read.words[other])))
        if other == row or not SHORTEST * lengths[0] <= length <= LONGEST * lengths[1]:
            yield ""
        else:
            yield read.texts[row][: read.spans[row][at][0]] + read.texts[other][read.spans[other][there][0] :]


def _places(texts: Sequence[Sequence[str]]) -> Mapping[tuple[str, ...], list[Place]]:
    """Where each inner word, and each pair of them, is."""
    places: dict[tuple[str, ...], list[Place]] = defaultdict(list)
    for row, words in enumerate(texts):
        for at in range(1, len(words) - 1):
            places[words[at],].append((row, at))
            places[tuple(words[at : at + 2])].append((row, at))
    return places


def _exchanged(read: _Read, rng: random.Random) -> Iterator[str]:
    """Texts with some words exchanged; empty where none was, none at all without texts for it."""
    between, after = _neighbours(read)
    rows = [row for row, words in enumerate(read.words) if words]
    while rows:
        row = rng.choice(rows)
        text, words = read.texts[row], [EDGE, *read.words[row], EDGE]
        pieces, end = [], 0
        for at, span in enumerate(read.spans[row], start=1):
            word = text[span[0] : span[1]]
            if rng.random() < EXCHANGED_SHARE:
                fitting = between.get((words[at - 1], words[at + 1]), [])
                if len(fitting) < 2:  # only itself
                    fitting = after.get(words[at - 1], [])
                word = rng.choice(fitting or [word])
                words[at] = word.lower()
            pieces += [text[end : span[0]], word]
            end = span[1]
        yield "".join([*pieces, text[end:]])


def _neighbours(read: _Read) -> tuple[Mapping[tuple[str, str], list[str]], Mapping[str, list[str]]]:
    """Which words stand between two others, and which after one: each once, as first written, in the order seen."""
    between: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    after: dict[str, dict[str, None]] = defaultdict(dict)
    for text, spans, low in zip(*read, strict=True):
        words = [EDGE, *low, EDGE]
        for at, (start, end) in enumerate(spans, start=1):
            between[words[at - 1], words[at + 1]].setdefault(text[start:end])
            after[words[at - 1]].setdefault(text[start:end])
    return {key: list(its) for key, its in between.items()}, {key: list(its) for key, its in after.items()}
