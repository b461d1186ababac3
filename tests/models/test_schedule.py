import random

from hypothesis import given
from hypothesis import strategies as st

from models.schedule import alternated, shuffled_batches, warm_up_then_decay


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


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    factors = [warm_up_then_decay(step, 10, 0.2) for step in range(11)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert factors[10] == 0.0
