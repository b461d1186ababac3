"""Texts in rows: each once, none cut, and little room left over."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.packing import TOKENS_A_TEXT, USUAL_ROW, pack, row_sizes


@pytest.mark.parametrize(
    ("max_tokens", "sizes"),
    [
        (24, (32, 64, 128)),
        (96, (32, 64, 128)),
        (128, (32, 64, 128)),
        (129, (32, 64, 128, 256)),
        (512, (32, 64, 128, 256, 512)),
    ],
)
def test_rows_come_in_powers_of_two_up_to_the_longest_text(max_tokens: int, sizes: tuple[int, ...]) -> None:
    assert row_sizes(max_tokens) == sizes


@given(st.lists(st.integers(1, 512), max_size=80))
def test_every_text_stands_in_one_row_that_holds_it(lengths: list[int]) -> None:
    sizes = row_sizes(512)
    rows = pack(lengths, sizes)
    assert sorted(text for row in rows for text in row.texts) == list(range(len(lengths)))
    for row in rows:
        used = sum(lengths[text] for text in row.texts)
        assert used <= row.tokens
        assert len(row.texts) <= row.tokens // TOKENS_A_TEXT
        least = max(used, TOKENS_A_TEXT * len(row.texts))
        assert row.tokens == min(size for size in sizes if size >= least)  # and no longer than it must be


def test_a_lone_short_text_takes_the_smallest_row() -> None:
    assert pack([20], row_sizes(96)) == [([0], 32)]


def test_the_longest_come_first_and_short_ones_fill_what_they_leave() -> None:
    assert pack([10, 100, 60, 60, 18], row_sizes(96)) == [([1, 4, 0], 128), ([2, 3], 128)]


def test_a_text_longer_than_the_longest_row_is_refused() -> None:
    with pytest.raises(ValueError, match="300 tokens do not fit in a row of 256"):
        pack([300], row_sizes(200))


def test_many_short_texts_leave_a_tenth_of_the_rows_empty_at_most() -> None:
    rng = random.Random(5)
    for _ in range(50):
        lengths = [min(96, max(5, round(rng.lognormvariate(3.0, 0.5)))) for _ in range(60)]
        assert sum(row.tokens for row in pack(lengths, row_sizes(96))) <= 1.10 * sum(lengths)
    assert USUAL_ROW in row_sizes(96)
