import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learning.drift import (
    FALSE_ALARM,
    PSI_MATTERS,
    Bins,
    Quantity,
    Tally,
    bins_of_columns,
    bins_of_values,
    chi_square_quantile,
    distance,
    population_stability,
    shifts,
)
from models.learning.estimated_accuracy import expected_of_scores

COUNTS = st.lists(st.integers(0, 2000), min_size=1, max_size=20)


def test_the_index_of_two_shares_is_the_published_sum() -> None:
    found = population_stability([5000, 5000], [8000, 2000])
    assert found.value == pytest.approx((0.8 - 0.5) * math.log(0.8 / 0.5) + (0.2 - 0.5) * math.log(0.2 / 0.5), abs=1e-3)
    assert found.limit == PSI_MATTERS
    assert found.drifted


@given(COUNTS, st.integers(1, 5))
@settings(deadline=None)
def test_equal_shares_are_no_distance_apart(counts: list[int], times: int) -> None:
    found = population_stability(np.array(counts) + 100, times * (np.array(counts) + 100))
    assert found.value < 1e-3
    assert not found.drifted


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=20))
@settings(deadline=None)
def test_the_index_is_finite_not_negative_and_the_same_both_ways(pairs: list[tuple[int, int]]) -> None:
    before, now = map(list, zip(*pairs, strict=True))
    there, back = population_stability(before, now), population_stability(now, before)
    assert 0 <= there.value < 50
    assert there.value == pytest.approx(back.value)
    assert there.limit == back.limit


@pytest.mark.parametrize("bins", [2, 10, 77])
def test_samples_of_one_population_stay_below_the_limit(bins: int) -> None:
    generator = np.random.default_rng(bins)
    shares = generator.dirichlet(np.ones(bins))
    looks = [
        population_stability(generator.multinomial(800, shares), generator.multinomial(200, shares)) for _ in range(500)
    ]
    assert sum(look.drifted for look in looks) <= 1  # FALSE_ALARM expects 0.05 of them


def test_many_labels_and_few_events_have_a_limit_of_their_own() -> None:
    assert population_stability([20] * 77, [10] * 77).limit > PSI_MATTERS
    assert population_stability([2000] * 77, [1000] * 77).limit == PSI_MATTERS


def test_what_is_rare_is_counted_together() -> None:
    found = population_stability([500, 500] + [1] * 50, [500, 500] + [0] * 25 + [2] * 25)
    assert found.value < 0.001


def test_nothing_counted_is_no_drift() -> None:
    assert not population_stability([10, 10], [0, 0]).drifted
    assert not population_stability([0, 0], [10, 10]).drifted


@pytest.mark.parametrize(
    ("degrees", "exact"), [(1, 15.137), (2, 18.421), (3, 21.108), (9, 33.720), (76, 130.595)]
)  # at 0.9999
def test_chi_square(degrees: int, exact: float) -> None:
    assert FALSE_ALARM == 1e-4
    assert chi_square_quantile(1 - FALSE_ALARM, degrees) == pytest.approx(exact, rel=0.04)


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=200))
@settings(deadline=None)
def test_every_value_is_in_one_bin(values: list[float]) -> None:
    bins = bins_of_values(values)
    assert sum(bins.counts) == len(values)
    assert len(bins.counts) == len(bins.edges) + 1
    assert bins.count(values).tolist() == list(bins.counts)
    assert bins.count([-1e9, 1e9]).sum() == 2


def test_bins_are_about_equally_full_and_equal_values_are_not_parted() -> None:
    assert bins_of_values(np.arange(1000)).counts == (100,) * 10
    assert bins_of_values([0.0] * 80 + [0.5] * 20).counts == (80, 20)


def test_one_value_alone_leaves_a_bin_for_what_is_above_it() -> None:
    bins = bins_of_values([0.0] * 50)
    assert bins.count([0.0, 0.1]).tolist() == [1, 1]


def test_columns_have_a_bin_each_also_those_that_do_not_occur() -> None:
    bins = bins_of_columns([0, 2, 2], 4)
    assert bins.counts == (1, 0, 2, 0)
    assert bins.count([3, 0]).tolist() == [1, 0, 0, 1]


def test_tallies_add_up_and_show_which_quantity_moved() -> None:
    reference: dict[Quantity, Bins] = {
        "label": bins_of_columns([0] * 500 + [1] * 500, 2),
        "length": bins_of_values(np.arange(1000)),
    }
    one = Tally({"label": np.array([90, 10])}, expected_of_scores([0.9] * 100))
    both = one + Tally({"label": np.array([80, 20]), "length": np.array([10] * 10)}) + Tally()
    assert both.counts["label"].tolist() == [170, 30]
    assert both.expected.n == 100
    found = shifts(reference, both)
    assert found["label"].drifted
    assert not found["length"].drifted


def _vectors(seed: int, count: int, moved: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centre = np.ones(32)
    centre[0] += moved
    vectors: np.ndarray = generator.normal(size=(count, 32)) + centre
    return vectors


def test_vectors_of_one_source_are_near_and_of_another_far() -> None:
    reference = _vectors(0, 150)
    assert [distance(reference, _vectors(seed, 100)).drifted for seed in range(1, 16)].count(True) <= 1
    assert distance(reference, _vectors(1, 100, moved=8.0)).drifted


def test_the_distance_is_zero_on_average_where_there_is_none() -> None:
    values = [distance(_vectors(seed, 60), _vectors(1000 + seed, 60)).value for seed in range(20)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))


def test_the_distance_depends_on_no_order_and_on_no_length_of_the_vectors() -> None:
    one, other = _vectors(0, 40), _vectors(1, 50, moved=1.0)
    assert distance(one, other).value == pytest.approx(distance(one[::-1] * 7, other[::-1]).value)


@pytest.mark.parametrize("few", [0, 1])
def test_too_few_vectors_are_no_drift(few: int) -> None:
    assert not distance(_vectors(0, few), _vectors(1, 50)).drifted
    assert not distance(np.zeros((50, 4)), np.zeros((few, 4))).drifted


def test_equal_vectors_are_no_drift() -> None:
    assert not distance(np.ones((20, 4)), np.ones((20, 4))).drifted


def test_bins_are_compared_by_what_they_say() -> None:
    assert Bins((1.0,), (2, 3)) == Bins((1.0,), (2, 3))
