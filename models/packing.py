"""Texts side by side in rows of a few fixed sizes, so that what runs them sees few shapes and little padding.

A row holds several texts, each with positions of its own from 0 and attention to itself alone: what comes out is what
each text gives by itself. (The idea is known from training as sequence packing: Krell et al., "Efficient Sequence
Packing without Cross-contamination", arXiv:2107.02027.)
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

SMALLEST_ROW = 32
USUAL_ROW = 128  # tokens; a longer row costs more a token for its attention, a shorter one is filled less well
TOKENS_A_TEXT = 4  # a row of t tokens holds t / 4 texts at most


class Row(NamedTuple):
    """One run: `texts` says which ones stand in it, one after the other from its start; `tokens` is its size."""

    texts: list[int]
    tokens: int


class _Open:
    """A row while it is filled."""

    def __init__(self, capacity: int) -> None:
        self.texts: list[int] = []
        self.capacity = capacity
        self.room = capacity


def row_sizes(max_tokens: int) -> tuple[int, ...]:
    """The sizes of rows for texts of up to `max_tokens`: powers of two."""
    sizes = [SMALLEST_ROW]
    while sizes[-1] < max(USUAL_ROW, max_tokens):
        sizes.append(2 * sizes[-1])
    return tuple(sizes)


def pack(lengths: Sequence[int], sizes: Sequence[int]) -> list[Row]:
    """Put texts of these lengths into rows of these ascending sizes: longest first, each where the least room is left.

    Raises ValueError for a text longer than the largest row.
    """
    rows: list[_Open] = []
    for text in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        length = lengths[text]
        fitting = [row for row in rows if row.room >= length and len(row.texts) < row.capacity // TOKENS_A_TEXT]
        row = min(fitting, key=lambda one: one.room, default=None)
        if row is None:
            row = _Open(_size(max(length, USUAL_ROW), sizes))
            rows.append(row)
        row.texts.append(text)
        row.room -= length
    return [Row(row.texts, _size(max(row.capacity - row.room, TOKENS_A_TEXT * len(row.texts)), sizes)) for row in rows]


def _size(tokens: int, sizes: Sequence[int]) -> int:
    """The smallest size that holds so many tokens."""
    smaller = sum(1 for _ in takewhile(lambda size: size < tokens, sizes))
    if smaller == len(sizes):
        raise ValueError(f"{tokens} tokens do not fit in a row of {sizes[-1]}")
    return sizes[smaller]
