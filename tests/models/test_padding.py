import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.padding import length_sorted_batches, padded

WINDOWS = st.lists(st.lists(st.integers(1, 30_000), min_size=1, max_size=40), min_size=1, max_size=20)


@given(WINDOWS)
def test_a_batch_is_filled_up_to_its_longest_window(windows: list[list[int]]) -> None:
    ids, mask = padded(windows, 0)
    assert ids.shape == mask.shape == (len(windows), max(map(len, windows)))
    assert ids.dtype == mask.dtype == np.int64
    for row, window in enumerate(windows):
        assert ids[row].tolist() == window + [0] * (ids.shape[1] - len(window))
        assert mask[row].tolist() == [1] * len(window) + [0] * (ids.shape[1] - len(window))


def test_a_batch_is_filled_with_the_tokenizers_own_padding() -> None:
    ids, mask = padded([[5, 6, 7], [5]], 9)
    assert ids.tolist() == [[5, 6, 7], [5, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = length_sorted_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
