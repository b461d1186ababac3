import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.calibration import expected_calibration_error
from models.softmax import softmax
from models.temperature import (
    TEMPERATURES,
    UNTEMPERED,
    Bend,
    Calibration,
    fit_calibration,
    golden_section,
    leads_of,
    negative_log_likelihood,
)

LOGITS = arrays.arrays(np.float32, (12, 3), elements=st.floats(-10, 10, width=32))
TARGETS = arrays.arrays(np.int64, 12, elements=st.integers(0, 2))
TEMPERATURE = st.floats(*TEMPERATURES)
BENT = Calibration(2.0, (Bend(lead=1.0, temperature=0.5), Bend(lead=3.0, temperature=4.0)))


def fitted(logits: np.ndarray, targets: np.ndarray) -> Calibration:
    return fit_calibration(lambda its: negative_log_likelihood(logits, targets, its), logits, len(targets))


def drawn(logits: np.ndarray, seed: int = 3) -> np.ndarray:
    """Targets as likely as these logits say."""
    rng = np.random.default_rng(seed)
    targets: np.ndarray = (softmax(logits).cumsum(axis=1) > rng.random((len(logits), 1))).argmax(axis=1)
    return targets


def test_nll_by_hand() -> None:
    logits = np.array([[math.log(3), 0.0], [0.0, 0.0]])  # p(target) = 3/4 and 1/2
    targets = np.array([0, 1])
    assert negative_log_likelihood(logits, targets, UNTEMPERED) == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)
    assert negative_log_likelihood(1000 * logits, targets, UNTEMPERED) < 1.0  # no overflow


def test_a_lead_is_divided_stretch_by_stretch() -> None:
    logits = np.array([[0.5, 0.0], [2.0, 0.0], [0.0, 7.0], [1.0, 1.0]], np.float32)
    assert leads_of(BENT.applied(logits)) == pytest.approx([0.25, 0.5 + 2, 0.5 + 4 + 1, 0])
    assert leads_of(Calibration(2.0).applied(logits)) == pytest.approx([0.25, 1, 3.5, 0])


@given(LOGITS, TEMPERATURE, st.lists(st.tuples(st.floats(0.01, 20), TEMPERATURE), max_size=4, unique_by=lambda b: b[0]))
def test_the_order_of_labels_stays_and_a_larger_lead_stays_the_larger(
    logits: np.ndarray, temperature: float, bends: list[tuple[float, float]]
) -> None:
    calibration = Calibration(
        temperature, tuple(Bend(lead=lead, temperature=its) for lead, its in sorted(bends, key=lambda bend: bend[0]))
    )
    found = calibration.applied(logits)
    assert (calibration.factors(logits) > 0).all()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(
        np.take_along_axis(found, logits.argmax(axis=1)[:, None], axis=1)[:, 0], found.max(axis=1)
    )
    before = leads_of(logits)
    after = leads_of(found)[np.argsort(before, kind="stable")]
    assert (np.diff(after) >= -1e-3 * (1 + after[:-1])).all()


def test_a_known_temperature_is_recovered() -> None:
    logits = np.random.default_rng(3).normal(0, 2, (5000, 4))
    targets = drawn(logits)
    for scale in (2.5, 0.5):
        found = fitted(scale * logits, targets)
        assert [found.temperature, *(bend.temperature for bend in found.bends)] == pytest.approx([scale] * 3, rel=0.15)


def test_a_bent_truth_is_recovered_where_one_temperature_fails() -> None:
    logits = np.random.default_rng(5).normal(0, 3, (8000, 3)).astype(np.float32)
    knots = np.quantile(leads_of(logits), [0.15, 0.35])
    truth = Calibration(4.0, (Bend(lead=knots[0], temperature=2.0), Bend(lead=knots[1], temperature=0.5)))
    targets = drawn(truth.applied(logits))
    found = fitted(logits, targets)
    assert found.temperature > found.bends[0].temperature > found.bends[1].temperature
    assert found.bends[1].temperature == pytest.approx(0.5, rel=0.15)

    def ece(calibration: Calibration) -> float:
        scores = softmax(calibration.applied(logits))
        return expected_calibration_error(scores.max(axis=1), scores.argmax(axis=1) == targets)

    plain = min((Calibration(its) for its in np.geomspace(0.3, 4, 60)), key=lambda its: _nll(logits, targets, its))
    assert ece(found) < 0.5 * ece(plain)


def _nll(logits: np.ndarray, targets: np.ndarray, calibration: Calibration) -> float:
    return negative_log_likelihood(logits, targets, calibration)


def test_a_handful_of_right_answers_does_not_make_the_scores_certain() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    few = fitted(logits, np.array([0, 1]))
    many = fitted(np.tile(logits, (50, 1)), np.tile(np.array([0, 1]), 50))
    assert many.temperature < few.temperature < 1.0
    assert few.temperature > 0.6
    assert few.bends == many.bends == ()


@given(LOGITS, TARGETS, st.sampled_from([1, 20]))
def test_what_is_fitted_stays_in_range_and_does_not_hurt(logits: np.ndarray, targets: np.ndarray, times: int) -> None:
    logits, targets = np.tile(logits, (times, 1)), np.tile(targets, times)
    found = fitted(logits, targets)
    for temperature in (found.temperature, *(bend.temperature for bend in found.bends)):
        assert 0.2 <= temperature <= 10.0
    assert _nll(logits, targets, found) <= _nll(logits, targets, UNTEMPERED) + 1e-3


@given(st.floats(-5, 5))
def test_golden_section_finds_a_minimum_inside_and_at_the_bounds(minimum: float) -> None:
    found = golden_section(lambda x: (x - minimum) ** 2, -3.0, 3.0)
    assert found == pytest.approx(min(max(minimum, -3.0), 3.0), abs=1e-3)
