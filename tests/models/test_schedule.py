import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.schedule import (
    alternated,
    chosen_windows,
    grouped,
    learning_rate_factor,
    paired_batches,
    shuffled_batches,
    shuffler_of,
)


def test_batches_hold_every_row_once_and_little_padding() -> None:
    lengths = [random.Random(3).randint(1, 60) for _ in range(500)]
    batches = shuffled_batches(lengths, 16, random.Random(1))
    assert sorted(row for batch in batches for row in batch) == list(range(500))
    assert max(map(len, batches)) == 16
    assert sum(len(batch) * max(lengths[row] for row in batch) for batch in batches) < 1.2 * sum(lengths)
    assert batches != shuffled_batches(lengths, 16, random.Random(2))


def test_a_small_task_is_spread_over_a_large_one() -> None:
    large, small = [[row] for row in range(6)], [[10], [11]]
    order = alternated([large, small])
    assert [number for number, _ in order] == [0, 0, 1, 0, 0, 0, 1, 0]


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_every_stretch_holds_every_task_in_proportion(counts: list[int]) -> None:
    batches = [[[row] for row in range(count)] for count in counts]
    order = alternated(batches)
    for number, its in enumerate(batches):
        assert [rows for which, rows in order if which == number] == its
    for end in range(len(order) + 1):
        share = end / len(order)
        for number, count in enumerate(counts):
            seen = sum(which == number for which, _ in order[:end])
            assert abs(seen - share * count) <= (1 + len(counts)) / 2


def test_the_batches_of_one_task_keep_their_order() -> None:
    assert alternated([[[3, 1], [2]]]) == [(0, [3, 1]), (0, [2])]


def test_the_learning_rate_rises_then_goes_by_its_shape() -> None:
    linear = [learning_rate_factor(step, 10, 0.2, "linear") for step in range(11)]
    cosine = [learning_rate_factor(step, 10, 0.2, "cosine") for step in range(11)]
    constant = [learning_rate_factor(step, 10, 0.2, "constant") for step in range(11)]
    for factors in (linear, cosine, constant):
        assert factors[:3] == [0.5, 1.0, 1.0]
        assert factors[2:] == sorted(factors[2:], reverse=True)
    assert [linear[6], cosine[6]] == pytest.approx([0.5, 0.5])
    assert cosine[4] > linear[4] and cosine[8] < linear[8]
    assert linear[10] == cosine[10] == 0.0
    assert constant[10] == 1.0


def test_an_epochs_random_numbers_are_its_own() -> None:
    draws = {shuffler_of(*key).random() for key in ((1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1))}
    assert len(draws) == 4
    assert shuffler_of(1, 1, 0).random() in draws


@settings(deadline=None)
@given(st.lists(st.integers(-1, 6), max_size=60), st.integers(2, 12), st.integers(0, 9))
def test_contrastive_batches_pair_texts_of_a_label(targets: list[int], batch_texts: int, seed: int) -> None:
    batches = paired_batches(targets, batch_texts, random.Random(seed))
    rows = [row for batch in batches for row in batch]
    for batch in batches:
        assert 2 <= len(batch) <= batch_texts
        for first, second in zip(batch[::2], batch[1::2], strict=True):
            assert first != second
            assert targets[first] == targets[second] >= 0
    wanted = {row for row, target in enumerate(targets) if target >= 0 and targets.count(target) > 1}
    assert set(rows) == wanted
    assert len(rows) - len(wanted) <= len(set(targets))  # of a label at most one text comes twice


def test_contrastive_batches_hold_many_labels() -> None:
    targets = [label for label in range(16) for _ in range(10)]
    batches = paired_batches(targets, 32, random.Random(0))
    assert all(len({targets[row] for row in batch}) >= 12 for batch in batches)


def test_which_windows_an_epoch_learns() -> None:
    spans = [range(0, 1), range(1, 5), range(5, 7)]
    assert chosen_windows(spans, "first", random.Random(0)) == [0, 1, 5]
    assert chosen_windows(spans, "all", random.Random(0)) == list(range(7))
    draws = [chosen_windows(spans, "random", random.Random(seed)) for seed in range(40)]
    for place, span in enumerate(spans):
        assert {draw[place] for draw in draws} == set(span)


def test_batches_in_groups_make_a_step() -> None:
    batches = [(0, [row]) for row in range(5)]
    assert [len(group) for group in grouped(batches, 2)] == [2, 2, 1]
    assert [one for group in grouped(batches, 2) for one in group] == batches
