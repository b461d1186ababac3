from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.bench.statistics import (
    Rate,
    Sample,
    Spread,
    Tail,
    arrivals_s,
    best,
    percentile,
    rate,
    ratio,
    rotated,
    spread,
    tail,
)


def test_a_rate_counts_from_a_tenth_of_the_outputs_to_all_of_them() -> None:
    samples = [
        Sample(0.0, 0, 1.0),
        Sample(5.0, 50, 6.0),  # slow to start: not counted
        Sample(5.1, 120, 6.05),
        Sample(6.1, 620, 6.55),
        Sample(7.1, 1020, 7.05),
        Sample(8.1, 1200, 9.0),  # spare ones: not counted
    ]
    assert rate(samples, 1000) == pytest.approx(Rate(900 / 2.0, 1.0 / 900 * 1e6))


def test_a_run_that_fits_between_two_samples_counts_from_the_one_before() -> None:
    assert rate([Sample(0, 0, 0.0), Sample(2, 100, 0.5)], 100) == Rate(50.0, 5000.0)


@pytest.mark.parametrize("samples", [[], [Sample(0, 0, 0), Sample(1, 99, 0)], [Sample(0, 100, 0)]])
def test_a_run_without_an_end_or_a_beginning_has_no_rate(samples: list[Sample]) -> None:
    with pytest.raises(ValueError, match="100 outputs"):
        rate(samples, 100)


@given(st.lists(st.integers(1, 500), min_size=2, max_size=30))
def test_a_steady_system_has_its_rate_however_it_is_sampled(steps_ms: list[int]) -> None:
    times_s = [0.0, *itertools.accumulate(step / 1000 for step in steps_ms)]
    samples = [Sample(at_s, round(at_s * 1_000_000), at_s / 2) for at_s in times_s]
    found = rate(samples, samples[-1].outputs)
    assert found.events_per_s == pytest.approx(1_000_000, rel=1e-3)
    assert found.cpu_us_per_event == pytest.approx(0.5, rel=1e-3)


def test_spread() -> None:
    assert spread([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.5, 0.99, 1.0]))
def test_a_percentile_is_the_smallest_value_that_covers_the_share(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-6
    assert sum(value < found for value in ordered) < share * len(ordered)


def test_the_tail_of_a_hundred() -> None:
    assert tail([float(one) for one in range(100, 0, -1)]) == Tail(50.0, 99.0)


def test_every_system_comes_first_in_turn() -> None:
    assert [rotated("abc", number) for number in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]
    assert rotated([], 3) == []


def test_arrivals_are_random_ordered_and_always_the_same() -> None:
    times_s = arrivals_s(500, 10)
    assert times_s == arrivals_s(500, 10)
    assert times_s == sorted(times_s)
    assert 0 <= times_s[0] <= times_s[-1] < 10
    assert len(times_s) == pytest.approx(5000, abs=5 * math.sqrt(5000))


def test_best_and_ratio() -> None:
    assert best({"a": 1.0, "b": 3.0}) == "b"
    assert best({}) is None
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is ratio(3.0, None) is ratio(3.0, 0.0) is None
