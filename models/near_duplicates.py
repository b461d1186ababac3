"""Texts that say nearly the same, found among many by MinHash (Broder 1997) and locality-sensitive hashing.

Two texts are alike by the share of their character 5-grams that they have in common (Jaccard), case and spacing left
aside; so scripts without spaces are compared as well as English. Hashing only proposes pairs. Each is compared exactly,
so that none is reported that is not alike; of those just alike enough, FOUND or more are proposed, of others more.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

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

Grams = npt.NDArray[np.uint32]  # the hashes of a text's 5-grams, sorted, each once


class Pair(NamedTuple):
    """Two rows whose texts are alike, the earlier one first."""

    first: int
    second: int
    similarity: float  # 0..1


def near_duplicates(
    texts: Sequence[str], alike: float = ALIKE, progress: Callable[[str, int, int], None] | None = None
) -> list[Pair]:
    """Every pair of texts whose similarity is `alike` (0..1) or more, by second row; identical ones too.

    A text that is like very many is compared with MOST_PROPOSED of them. The same texts give the same pairs. Raises
    MissingExtra without the datasketch library.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise MissingExtra(f"finding near-duplicates needs datasketch: {DATA_EXTRA}") from error
    index = MinHashLSH(params=bands(alike), num_perm=PERMUTATIONS)
    empty = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
    grams: list[Grams] = []
    pairs = []
    for row, text in enumerate(texts):
        ours = hashed_grams(text)
        sketch = empty.copy()
        sketch.update_batch(ours.tolist())
        for other in sorted(index.query(sketch), reverse=True)[:MOST_PROPOSED]:
            similarity = jaccard(grams[other], ours)
            if similarity >= alike:
                pairs.append(Pair(other, row, similarity))
        index.insert(row, sketch)
        grams.append(ours)
        if progress is not None and row % 100 == 0:
            progress("compare", row, len(texts))
    return pairs


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
