"""Texts that say nearly the same, found among many by MinHash (Broder 1997) and locality-sensitive hashing.

Two texts are alike by the share of their character 5-grams that they have in common (Jaccard), case and spacing left
aside; so scripts without spaces are compared as well as English. Hashing only proposes pairs. Each is compared exactly,
so that none is reported that is not alike; of those just alike enough, FOUND or more are proposed, of others more.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.datasets import normalised
from models.errors import DATA_EXTRA, MissingExtra

ALIKE = 0.8  # texts with so many of their 5-grams in common differ by a word or two
GRAM_CHARS = 5
MAX_CHARS = 20_000  # of a text, compared
PERMUTATIONS = 256
FOUND = 0.99
MOST_PROPOSED = 500  # for one text: from templates come too many pairs to compare, and these say enough

Progress = Callable[[str, int, int], None]
Grams = npt.NDArray[np.uint32]  # the hashes of a text's 5-grams, sorted, each once


class Pair(NamedTuple):
    """Two rows whose texts are alike, the earlier one first."""

    first: int
    second: int
    similarity: float  # 0..1


def near_duplicates(texts: Sequence[str], alike: float = ALIKE, progress: Progress | None = None) -> list[Pair]:
    """Every pair of texts whose similarity is `alike` (0..1) or more, by second row; identical ones too.

    A text that is like very many is compared with MOST_PROPOSED of them. The same texts give the same pairs. Raises
    MissingExtra without the datasketch library.
    """
    index = _Index(alike)
    pairs = []
    for row, text in enumerate(texts):
        sketch = index.sketch(text)
        pairs += [Pair(other, row, similarity) for other, similarity in index.like(sketch, MOST_PROPOSED)]
        index.add(sketch)
        if progress is not None and row % 100 == 0:
            progress("compare", row, len(texts))
    return pairs


def closest(
    texts: Sequence[str], among: Sequence[str], alike: float = ALIKE, progress: Progress | None = None
) -> list[Pair | None]:
    """Of each text the most similar one `among` others, the first of equals; None where none is `alike` or more.

    `first` is the row among the others, `second` that of the text. Raises MissingExtra without datasketch.
    """
    index = _Index(alike)
    found: list[Pair | None] = []
    for done, text in enumerate((*among, *texts)):
        sketch = index.sketch(text)
        if done < len(among):
            index.add(sketch)
        else:
            like = [Pair(other, len(found), similarity) for other, similarity in index.like(sketch)]
            found.append(max(like, key=lambda pair: (pair.similarity, -pair.first), default=None))
        if progress is not None and done % 100 == 0:
            progress("compare", done, len(among) + len(texts))
    return found


class _Sketch(NamedTuple):
    """A text as it is hashed, and as it is compared."""

    hashed: Any  # a datasketch.MinHash
    grams: Grams


class _Index:
    """Texts in the order in which they were added, found by what they are like."""

    def __init__(self, alike: float) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError as error:
            raise MissingExtra(f"finding near-duplicates needs datasketch: {DATA_EXTRA}") from error
        self._alike = alike
        self._proposing = MinHashLSH(params=bands(alike), num_perm=PERMUTATIONS)
        self._empty = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        self._grams: list[Grams] = []

    def sketch(self, text: str) -> _Sketch:
        grams = hashed_grams(text)
        hashed = self._empty.copy()
        hashed.update_batch(grams.tolist())
        return _Sketch(hashed, grams)

    def add(self, sketch: _Sketch) -> None:
        self._proposing.insert(len(self._grams), sketch.hashed)
        self._grams.append(sketch.grams)

    def like(self, sketch: _Sketch, most: int | None = None) -> Iterator[tuple[int, float]]:
        """Rows that are alike and how much, the latest first; at most so many are compared."""
        for row in sorted(self._proposing.query(sketch.hashed), reverse=True)[:most]:
            similarity = jaccard(self._grams[row], sketch.grams)
            if similarity >= self._alike:
                yield row, similarity


def bands(alike: float) -> tuple[int, int]:
    """Into how many bands of how many permutations a sketch is cut: the longest by which FOUND are proposed.

    Texts of similarity s share all r values of one of b bands with probability 1 - (1 - s**r)**b. Raises ValueError for
    an `alike` outside 0..1.
    """
    if not 0 < alike <= 1:
        raise ValueError(f"alike must lie above 0 and at most at 1, found {alike}")
    lengths = range(PERMUTATIONS // 2, 0, -1)
    rows = next((r for r in lengths if 1 - (1 - alike**r) ** (PERMUTATIONS // r) >= FOUND), 1)
    return PERMUTATIONS // rows, rows


def hashed_grams(text: str) -> Grams:
    """The 32-bit hashes of a text's 5-grams, of the whole text when it is shorter; sorted, each once, never none."""
    points = np.frombuffer(normalised(text)[:MAX_CHARS].encode("utf-32-le", "surrogatepass"), np.uint32)
    points = points.astype(np.uint64)
    width = min(GRAM_CHARS, len(points))
    hashes = np.zeros(max(1, len(points) - width + 1), np.uint64)
    for place in range(width):  # a polynomial in an odd constant, modulo 2**64; its upper half is the hash
        hashes = (hashes + points[place : len(points) - width + 1 + place]) * np.uint64(0x9E3779B97F4A7C15)
    return np.unique((hashes >> np.uint64(32)).astype(np.uint32))


def jaccard(one: Grams, other: Grams) -> float:
    """What two sets have in common, as a share of what either has."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)
