import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.datasets import Example
from models.errors import BadDataset
from models.evaluation import (
    abstention,
    expected_calibration_error,
    fit_temperature,
    golden_section,
    label_scores,
    macro_f1,
    negative_log_likelihood,
    target_indices,
)

LABELS = ("a", "b", "c")
COLUMNS = arrays.arrays(np.int64, st.shared(st.integers(1, 30), key="n"), elements=st.integers(0, 2))
CONFIDENCE = arrays.arrays(np.float32, st.shared(st.integers(1, 30), key="n"), elements=st.floats(0, 1, width=32))
CORRECT = arrays.arrays(np.bool_, st.shared(st.integers(1, 30), key="n"))


def test_label_scores_by_hand() -> None:
    # a: 2 of 3 found, 2 of 2 picks right; b: 1 of 1 found, 1 of 2 right; c: never there, never picked
    scores = label_scores(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), LABELS)
    assert scores["a"].precision == 1.0
    assert scores["a"].recall == pytest.approx(2 / 3)
    assert scores["a"].f1 == pytest.approx(0.8)
    assert (scores["b"].precision, scores["b"].recall, scores["b"].support) == (0.5, 1.0, 1)
    assert scores["b"].f1 == pytest.approx(2 / 3)
    assert (scores["c"].precision, scores["c"].recall, scores["c"].f1, scores["c"].support) == (0.0, 0.0, 0.0, 0)


def test_macro_f1_by_hand_leaves_out_labels_that_never_occur() -> None:
    assert macro_f1(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), LABELS) == pytest.approx((0.8 + 2 / 3) / 2)
    assert macro_f1(np.array([0, 0]), np.array([0, 2]), LABELS) == pytest.approx((2 / 3 + 0) / 2)


@given(COLUMNS, COLUMNS)
def test_f1_lies_between_precision_and_recall_and_is_symmetric(targets: np.ndarray, chosen: np.ndarray) -> None:
    scores = label_scores(targets, chosen, LABELS)
    for score in scores.values():
        assert min(score.precision, score.recall) - 1e-9 <= score.f1 <= max(score.precision, score.recall) + 1e-9
    assert sum(score.support for score in scores.values()) == len(targets)
    assert macro_f1(targets, chosen, LABELS) == pytest.approx(macro_f1(chosen, targets, LABELS))
    assert (macro_f1(targets, chosen, LABELS) == 1.0) == bool((targets == chosen).all())


def test_ece_by_hand() -> None:
    # Two bins of ten: (0.8, 0.9] holds 0.85 right and 0.89 wrong, gap |0.5 - 0.87|; (0.5, 0.6] holds 0.6 right.
    confidence = np.array([0.85, 0.89, 0.6])
    correct = np.array([True, False, True])
    assert expected_calibration_error(confidence, correct, bins=10) == pytest.approx((2 * 0.37 + 0.4) / 3)


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


def test_nll_by_hand() -> None:
    logits = np.array([[math.log(3), 0.0], [0.0, 0.0]])  # p(target) = 3/4 and 1/2
    targets = np.array([0, 1])
    assert negative_log_likelihood(logits, targets, 1.0) == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)
    assert negative_log_likelihood(1000 * logits, targets, 1.0) < 1.0  # no overflow


def test_the_temperature_recovers_a_known_one() -> None:
    generator = np.random.default_rng(3)
    logits = generator.normal(0, 2, (5000, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = np.array([generator.choice(4, p=row) for row in probabilities])
    assert fit_temperature(2.5 * logits, targets) == pytest.approx(2.5, rel=0.05)
    assert fit_temperature(logits / 2, targets) == pytest.approx(0.5, rel=0.05)


def test_a_handful_of_right_answers_does_not_make_the_scores_certain() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    few = fit_temperature(logits, np.array([0, 1]))
    many = fit_temperature(np.tile(logits, (500, 1)), np.tile(np.array([0, 1]), 500))
    assert many < few < 1.0
    assert few > 0.6


@given(
    arrays.arrays(np.float32, (12, 3), elements=st.floats(-10, 10, width=32)),
    arrays.arrays(np.int64, 12, elements=st.integers(0, 2)),
)
def test_the_fitted_temperature_stays_in_range_and_does_not_hurt(logits: np.ndarray, targets: np.ndarray) -> None:
    temperature = fit_temperature(logits, targets)
    assert 0.2 <= temperature <= 10.0
    fitted = negative_log_likelihood(logits, targets, temperature)
    assert fitted <= negative_log_likelihood(logits, targets, 1.0) + 1e-3


@given(st.floats(-5, 5))
def test_golden_section_finds_a_minimum_inside_and_at_the_bounds(minimum: float) -> None:
    found = golden_section(lambda x: (x - minimum) ** 2, -3.0, 3.0)
    assert found == pytest.approx(min(max(minimum, -3.0), 3.0), abs=1e-3)


def test_unknown_labels_and_empty_data_cannot_be_graded() -> None:
    assert target_indices(LABELS, [Example("x", "c"), Example("y", "a")]).tolist() == [2, 0]
    with pytest.raises(BadDataset, match=r"label 'd' is not among the release's labels: a, b, c \(and 1 more"):
        target_indices(LABELS, [Example("x", "e"), Example("x", "d")])
    with pytest.raises(BadDataset, match="no examples"):
        target_indices(LABELS, [])
