import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.calibration import (
    abstention,
    calibration_floor,
    expected_calibration_error,
    reliability,
)

CONFIDENCE = arrays.arrays(np.float32, st.shared(st.integers(1, 30), key="n"), elements=st.floats(0, 1, width=32))
CORRECT = arrays.arrays(np.bool_, st.shared(st.integers(1, 30), key="n"))


def test_ece_by_hand() -> None:
    # Two bins of ten: (0.8, 0.9] holds 0.85 right and 0.89 wrong, gap |0.5 - 0.87|; (0.5, 0.6] holds 0.6 right.
    confidence = np.array([0.85, 0.89, 0.6])
    correct = np.array([True, False, True])
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx((2 * 0.37 + 0.4) / 3)


def test_reliability_by_hand() -> None:
    found = reliability(np.array([0.85, 0.89, 0.6]), np.array([True, False, True]), bins=10)
    assert found.sizes.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 2, 0]
    assert found.confidence[[5, 8]] == pytest.approx([0.6, 0.87])
    assert found.accuracy[[5, 8]] == pytest.approx([1.0, 0.5])


def test_ece_keeps_the_bounds_of_its_bins() -> None:
    one = np.array([True, False])
    assert expected_calibration_error(np.array([1.0, 1.0]), one) == pytest.approx(0.5)  # 1 is in the last bin
    assert expected_calibration_error(np.array([0.0, 0.0]), one) == pytest.approx(0.5)  # 0 is in the first
    # 0.5 is the upper bound of the first of two bins: with 0.4 beside it the gaps cancel, from 0.6 they would not
    assert expected_calibration_error(np.array([0.5, 0.5]), one, bins=2) == pytest.approx(0.0)
    assert expected_calibration_error(np.array([0.5, 0.6]), one, bins=2) == pytest.approx((0.5 + 0.6) / 2)


@given(CONFIDENCE, CORRECT)
def test_ece_is_bounded_and_blind_to_order(confidence: np.ndarray, correct: np.ndarray) -> None:
    error = expected_calibration_error(confidence, correct)
    assert 0 <= error <= 1
    assert expected_calibration_error(confidence[::-1], correct[::-1]) == pytest.approx(error, abs=1e-6)
    overall = abs(float(correct.mean()) - float(confidence.mean()))
    assert error >= overall - 1e-6  # gaps of bins can only cancel when bins are joined
    assert expected_calibration_error(confidence, correct, bins=1) == pytest.approx(overall, abs=1e-6)


def test_perfect_scores_show_the_floor_and_more_texts_lower_it() -> None:
    rng = np.random.default_rng(5)
    floors = []
    for count in (300, 3000, 30_000):
        confidence = rng.uniform(0.3, 1.0, count)
        floors.append(calibration_floor(confidence))
        errors = [expected_calibration_error(confidence, rng.random(count) < confidence) for _ in range(20)]
        assert np.mean(errors) == pytest.approx(floors[-1], rel=0.2)
    assert floors[0] > 2.5 * floors[1] > 6 * floors[2]  # with the root of their number, about


def test_abstention_by_hand() -> None:
    confidence = np.array([0.9, 0.6, 0.59, 0.2])
    correct = np.array([True, False, True, True])
    assert abstention(confidence, correct, 0.6) == (0.5, 0.5)
    assert abstention(confidence, correct, 0.95) == (0.0, None)
    assert abstention(confidence, correct, 0.0) == (1.0, 0.75)


@given(CONFIDENCE, CORRECT, st.floats(0, 1), st.floats(0, 1))
def test_a_stricter_threshold_never_covers_more(
    confidence: np.ndarray, correct: np.ndarray, one: float, two: float
) -> None:
    low, high = sorted((one, two))
    assert abstention(confidence, correct, low)[0] >= abstention(confidence, correct, high)[0]
