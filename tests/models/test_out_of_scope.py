import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.out_of_scope import (
    Scope,
    choose_scope,
    familiarity,
    mahalanobis,
    nearest_neighbour,
    outside_column,
    separation,
)

VALUES = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=60)


def test_the_label_for_out_of_scope_goes_by_its_name() -> None:
    assert outside_column(("a", "oos", "z")) == 1
    assert outside_column(("out_of_scope", "z")) == 0
    assert outside_column(("a", "scope")) is None


def test_familiarity_by_hand() -> None:
    logits = np.array([[math.log(2), math.log(3), math.log(10)], [1000.0, 0.0, 0.0]])
    assert familiarity(logits, None) == pytest.approx([math.log(15), 1000.0])  # no overflow
    assert familiarity(logits, 2) == pytest.approx([math.log(5 / 10), 1000.0])  # the log-odds against the label
    assert familiarity(np.zeros((0, 3)), None).shape == (0,)


def test_a_threshold_by_hand() -> None:
    outside, inside = np.arange(9.0), np.arange(5.0, 105.0)
    scope = choose_scope(inside, outside, false_acceptance=0.2, most_turned_away=0.1)
    assert scope is not None
    # of the nine, the eighth ((9 + 1) x 0.8) is still turned away, and with it two of those in scope
    assert scope.familiar_from == pytest.approx(7.000001)
    assert scope.false_acceptance == pytest.approx(1 / 9)
    assert scope.false_rejection == pytest.approx(3 / 100)
    assert (scope.asked_false_acceptance, scope.n_outside) == (0.2, 9)
    strict = choose_scope(inside, outside, false_acceptance=0.2, most_turned_away=0.01)
    assert strict is not None
    assert strict.familiar_from == 6.0  # one of a hundred may be turned away, and the rate asked for is not kept
    assert strict.false_rejection == 0.01
    assert strict.false_acceptance == pytest.approx(3 / 9)


def test_too_few_texts_out_of_scope_promise_nothing() -> None:
    inside = np.arange(10.0)
    assert choose_scope(inside, np.zeros(3), 0.2, 0.5) is None
    assert choose_scope(inside, np.zeros(4), 0.2, 0.5) is not None
    assert choose_scope(inside, np.zeros(0), 0.2, 0.5) is None
    assert choose_scope(np.zeros(0), np.zeros(9), 0.2, 0.5) is None


@settings(deadline=None)
@given(VALUES, VALUES, st.floats(0.05, 0.9), st.floats(0, 0.9))
def test_a_threshold_keeps_one_of_its_two_bounds(
    inside: list[float], outside: list[float], rate: float, bearable: float
) -> None:
    scope = choose_scope(np.array(inside), np.array(outside), rate, bearable)
    if scope is None:
        assert math.ceil((len(outside) + 1) * (1 - rate)) > len(outside)
        return
    assert scope.false_rejection <= bearable + 1e-9
    kept = scope.false_acceptance <= rate
    stricter = sum(one <= scope.familiar_from + 1e-6 for one in inside) / len(inside)
    assert kept or stricter > bearable - 1e-9  # one step further would turn too many away


def test_the_promise_holds_on_new_texts() -> None:
    generator = np.random.default_rng(5)
    rates = []
    for _ in range(400):
        scope = choose_scope(np.full(50, 100.0), generator.normal(size=12), 0.2, 0.03)
        assert scope is not None
        rates.append(float((generator.normal(size=400) >= scope.familiar_from).mean()))
    assert 0.12 < float(np.mean(rates)) < 0.2  # two of thirteen, in expectation


def test_a_scope_survives_its_manifest() -> None:
    scope = Scope(familiar_from=-1.25, asked_false_acceptance=0.1, n_outside=9, false_acceptance=0, false_rejection=0)
    assert Scope.model_validate_json(scope.model_dump_json()) == scope
    with pytest.raises(ValueError, match="familiar_from"):
        Scope.model_validate(scope.model_dump() | {"familiar_from": math.nan})


def test_separation_by_hand() -> None:
    inside, outside = np.arange(20.0), np.array([-1.0, 0.5, 30.0])
    found = separation(inside, outside)
    assert found.auc == pytest.approx((20 + 19 + 0) / 60)
    assert found.recall == pytest.approx(2 / 3)  # the threshold is 1: one of twenty is turned away


def test_mahalanobis_by_hand() -> None:
    known = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0], [11.0, 0.0], [9.0, 0.0], [10.0, 2.0], [10, -2]])
    targets = np.array([0, 0, 0, 0, 3, 3, 3, 3])
    found = -mahalanobis(np.array([[0.0, 0.0], [10.0, 0.0], [1.0, 0.0], [0.0, 1.0], [5.0, 0.0]]), known, targets)
    # the labels' common covariance is diag(1/2, 2), a tenth of the way to the mean variance 1.25
    assert found == pytest.approx([0, 0, 1 / (0.9 * 0.5 + 0.125), 1 / (0.9 * 2 + 0.125), 25 / (0.9 * 0.5 + 0.125)])


def test_nearest_neighbour_by_hand() -> None:
    known = np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    vectors = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert nearest_neighbour(vectors, known, 1) == pytest.approx([1, math.sqrt(0.5), 0])
    assert nearest_neighbour(vectors, known, 2) == pytest.approx([0, math.sqrt(0.5), 0])
    assert nearest_neighbour(vectors, known, 99) == pytest.approx([-1, -math.sqrt(0.5), 0])
