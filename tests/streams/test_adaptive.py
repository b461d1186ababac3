"""What is learned from costs and arrivals: near enough to the truth, within bounds, and moving the right way."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.adaptive import Bounds, CostModel, Pace

FIXED_S, PER_TOKEN_S = 0.002, 5e-6
SIZES = (64, 256, 512, 1024, 2048)
BOUNDS = Bounds(max_events=1024, min_tokens=256, max_tokens=65_536, max_wait_s=0.02, target_p99_s=0.2)


def cost(fixed_s: float = FIXED_S, per_token_s: float = PER_TOKEN_S) -> CostModel:
    """A model that was measured before it started."""
    return CostModel([(tokens, fixed_s + per_token_s * tokens) for tokens in (8, 64, 512)])


def run(
    model: CostModel,
    batches: int,
    sizes: Sequence[int] = SIZES,
    fixed_s: float = FIXED_S,
    per_token_s: float = PER_TOKEN_S,
    noise: float = 0.1,
) -> None:
    """So many batches of these sizes, whose times scatter."""
    rng = random.Random(3)
    for _ in range(batches):
        tokens = rng.choice(sizes)
        model.observe(tokens, (fixed_s + per_token_s * tokens) * rng.uniform(1 - noise, 1 + noise))


@pytest.mark.parametrize("measured", [[], [(8, 0.1)], [(8, 0.1), (8, 0.2)]])
def test_one_size_tells_nothing_of_the_fixed_cost(measured: list[tuple[int, float]]) -> None:
    with pytest.raises(ValueError, match="two sizes"):
        CostModel(measured)


def test_what_was_measured_at_the_start_is_known_at_once() -> None:
    assert cost().fixed_s == pytest.approx(FIXED_S)
    assert cost().per_token_s == pytest.approx(PER_TOKEN_S)


@pytest.mark.parametrize("sizes", [SIZES, (1024,), (1000, 1024)])
def test_noisy_costs_of_whatever_sizes_are_learned(sizes: Sequence[int]) -> None:
    """Batches that are all alike cannot tell the two costs apart; what was measured at the start still does."""
    model = cost()
    run(model, 1000, sizes)
    assert model.fixed_s == pytest.approx(FIXED_S, rel=0.25)
    assert model.per_token_s == pytest.approx(PER_TOKEN_S, rel=0.1)


@pytest.mark.parametrize("factor", [0.1, 0.25, 3, 50])
@pytest.mark.parametrize("sizes", [SIZES, (64,), (1024,)])
def test_another_process_takes_the_cores_or_gives_them_back(sizes: Sequence[int], factor: float) -> None:
    model = cost()
    run(model, 1000, sizes)
    run(model, 1200, sizes, FIXED_S * factor, PER_TOKEN_S * factor)
    assert model.fixed_s == pytest.approx(FIXED_S * factor, rel=0.25)
    assert model.per_token_s == pytest.approx(PER_TOKEN_S * factor, rel=0.1)


def test_a_hiccup_is_soon_forgotten() -> None:
    model = cost()
    run(model, 300, noise=0)
    before = [model.expected_s(tokens) for tokens in SIZES]
    model.observe(1024, 60.0)
    assert [model.expected_s(tokens) for tokens in SIZES] == pytest.approx(before, rel=0.15)
    run(model, 600, noise=0)
    assert [model.expected_s(tokens) for tokens in SIZES] == pytest.approx(before, rel=0.01)


@given(
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 100)), min_size=2, max_size=4, unique_by=lambda one: one[0]),
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1000)), max_size=30),
)
def test_costs_stay_positive_and_limits_stay_usable(
    measured: list[tuple[int, float]], batches: list[tuple[int, float]]
) -> None:
    pace = Pace(BOUNDS, CostModel(measured))
    for tokens, seconds in batches:
        pace.ran(tokens, seconds)
        assert pace.cost.fixed_s > 0 and pace.cost.per_token_s > 0
        assert pace.limits.max_events == BOUNDS.max_events
        assert BOUNDS.min_tokens <= pace.limits.max_tokens <= BOUNDS.max_tokens
        assert 0 <= pace.limits.spare_tokens <= pace.limits.max_tokens
        assert 0 <= pace.patience_s(1, 1) <= BOUNDS.max_wait_s


costs = st.builds(cost, st.floats(1e-6, 0.1), st.floats(1e-8, 1e-3))
targets = st.floats(0.001, 10)


@given(costs, targets)
def test_a_batch_takes_a_third_of_the_target_where_the_bounds_allow(model: CostModel, target_s: float) -> None:
    tokens = Pace(BOUNDS._replace(target_p99_s=target_s), model).limits.max_tokens
    if tokens > BOUNDS.min_tokens:
        assert model.expected_s(tokens) <= target_s / 3 * 1.001
    if tokens < BOUNDS.max_tokens:
        assert model.expected_s(tokens + 1) >= target_s / 3 * 0.999


@given(costs, targets, targets)
def test_more_time_is_never_a_smaller_batch(model: CostModel, one_s: float, other_s: float) -> None:
    small, large = (Pace(BOUNDS._replace(target_p99_s=s), model).limits.max_tokens for s in sorted((one_s, other_s)))
    assert small <= large


@given(targets, st.floats(1e-6, 0.1), st.lists(st.floats(1e-8, 1e-3), min_size=2, max_size=2))
def test_a_slower_model_never_gets_larger_batches(target_s: float, fixed_s: float, speeds: list[float]) -> None:
    bounds = BOUNDS._replace(target_p99_s=target_s)
    fast, slow = (Pace(bounds, cost(fixed_s, per_token_s)).limits.max_tokens for per_token_s in sorted(speeds))
    assert fast >= slow - 1  # the costs are fitted: a token is the rounding's


def test_spare_tokens_cost_as_much_as_one_more_batch() -> None:
    assert Pace(BOUNDS, cost()).limits.spare_tokens == pytest.approx(FIXED_S / PER_TOKEN_S, abs=1)


def at_rate(per_s: float, model: CostModel | None = None, bounds: Bounds = BOUNDS) -> Pace:
    """A pace that has seen texts arrive at this rate for ten seconds."""
    pace = Pace(bounds, model or cost())
    for number in range(round(10 * per_s)):
        pace.arrived(1, number / per_s)
    return pace


def test_a_text_that_comes_alone_does_not_wait() -> None:
    assert Pace(BOUNDS, cost()).patience_s(1, 30) == 0
    assert at_rate(20).patience_s(1, 30) == 0
    assert at_rate(400).patience_s(1, 30) == 0


def test_at_a_high_rate_the_first_waits_for_as_long_as_a_batch_costs_at_least() -> None:
    pace = at_rate(5000)
    assert pace.patience_s(1, 30) == pytest.approx(FIXED_S)
    assert pace.patience_s(9, 270) == pytest.approx(FIXED_S)
    assert pace.patience_s(11, 330) == 0  # 10 a batch's fixed cost: from there each one more delays more than it saves


def test_a_rush_that_is_over_is_forgotten() -> None:
    pace = at_rate(5000)
    pace.arrived(1, 20.0)
    assert pace.patience_s(1, 30) == 0


def test_waiting_has_its_bound() -> None:
    assert at_rate(5000, cost(fixed_s=3.0)).patience_s(1, 30) == BOUNDS.max_wait_s
    assert at_rate(5000, cost(fixed_s=3.0), BOUNDS._replace(max_wait_s=0.0)).patience_s(1, 30) == 0


@pytest.mark.parametrize("full", [lambda pace: (1024, 1), lambda pace: (2, pace.limits.max_tokens)])
def test_a_full_batch_never_waits_for_more(full: Callable[[Pace], tuple[int, int]]) -> None:
    """A slow start of batches, a high rate: the wish for more is great, but there is no room for it."""
    pace = at_rate(5000, cost(fixed_s=3.0))
    waiting, tokens = full(pace)
    assert pace.patience_s(waiting - 1, tokens - 1) > 0
    assert pace.patience_s(waiting, tokens) == 0


@given(costs, st.floats(1, 500), st.integers(1, 2000), st.integers(1, 2000))
def test_the_more_wait_the_sooner_they_go(model: CostModel, per_s: float, one: int, other: int) -> None:
    pace = Pace(BOUNDS, model)
    for number in range(100):
        pace.arrived(1, number / per_s)
    few, many = sorted((one, other))
    assert pace.patience_s(few, few) >= pace.patience_s(many, many)
    assert pace.patience_s(few, few) <= min(model.fixed_s, BOUNDS.max_wait_s)


@given(costs, st.integers(1, 100), st.integers(1, 100), st.integers(1, 50))
def test_the_faster_they_come_the_longer_it_pays_to_wait(model: CostModel, one: int, other: int, waiting: int) -> None:
    slow, fast = (Pace(BOUNDS, model) for _ in range(2))
    for number in range(50):
        slow.arrived(min(one, other), number / 50)
        fast.arrived(max(one, other), number / 50)
    assert slow.patience_s(waiting, waiting) <= fast.patience_s(waiting, waiting)
