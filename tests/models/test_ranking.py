import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ranking import area_under_risk, auc, average_precision, risk_coverage

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40)


def columns(rows: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([first for first, _ in rows]), np.array([second / 5 for _, second in rows])


def test_auc_by_hand() -> None:
    positive = np.array([True, False, True, False])
    assert auc(positive, np.array([0.9, 0.1, 0.8, 0.2])) == 1.0
    assert auc(positive, np.array([0.1, 0.9, 0.2, 0.8])) == 0.0
    assert auc(positive, np.full(4, 0.3)) == 0.5
    assert auc(positive, np.array([0.8, 0.6, 0.4, 0.2])) == 0.75  # one of the four pairs is the wrong way round
    assert auc(np.array([True, True]), np.array([0.1, 0.2])) is None


@settings(deadline=None)
@given(ROWS)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int]]) -> None:
    positive, scores = columns(rows)
    above = [float(np.sign(a - b) + 1) / 2 for a in scores[positive] for b in scores[~positive]]
    found = auc(positive, scores)
    assert found is None if not above else found == pytest.approx(np.mean(above))
    if found is not None:
        assert auc(~positive, -scores) == pytest.approx(found)


def test_average_precision_by_hand() -> None:
    positive = np.array([True, False, True, False])
    # found first at precision 1, then at 2 of 3
    assert average_precision(positive, np.array([0.9, 0.8, 0.7, 0.1])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(positive, np.full(4, 0.3)) == 0.5  # all at once: the share of positives
    assert average_precision(~positive & positive, np.arange(4.0)) is None


@settings(deadline=None)
@given(ROWS)
def test_average_precision_is_no_less_than_one_positive_at_the_very_end(rows: list[tuple[bool, int]]) -> None:
    positive, scores = columns(rows)
    found = average_precision(positive, scores)
    assert (found is None) == (not positive.any())
    if found is not None:
        assert 1 / len(rows) - 1e-9 <= found <= 1 + 1e-9
        order = np.random.default_rng(0).permutation(len(rows))
        assert average_precision(positive[order], scores[order]) == pytest.approx(found)


def test_risk_coverage_by_hand() -> None:
    curve = risk_coverage(np.array([0.6, 0.9, 0.7, 0.7]), np.array([False, True, True, False]))
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]  # the two at 0.7 come together
    assert curve.risk.tolist() == pytest.approx([0.0, 1 / 3, 0.5])
    area = area_under_risk(np.array([0.6, 0.9, 0.7, 0.7]), np.array([False, True, True, False]))
    assert area == pytest.approx((0 + 0.25 + 1 / 3 + 0.5) / 4)


@settings(deadline=None)
@given(ROWS)
def test_at_full_coverage_the_risk_is_the_error_rate(rows: list[tuple[bool, int]]) -> None:
    correct, confidence = columns(rows)
    curve = risk_coverage(confidence, correct)
    assert curve.coverage[-1] == 1.0
    assert curve.risk[-1] == pytest.approx((~correct).mean())
    assert (np.diff(curve.coverage) > 0).all()
    area = area_under_risk(confidence, correct)
    best, worst = (area_under_risk(order, correct) for order in (correct.astype(float), -correct.astype(float)))
    assert best - 1e-9 <= area <= worst + 1e-9
