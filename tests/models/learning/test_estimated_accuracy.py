import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learning.estimated_accuracy import (
    Expected,
    Labelled,
    expected,
    expected_of_scores,
    realised,
    wilson,
)


def _calibrated(seed: int, count: int, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and true labels that are drawn by them."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(labels, 0.4), count)
    targets = (probabilities.cumsum(axis=1) > generator.random((count, 1))).argmax(axis=1)
    return probabilities, targets


def test_calibrated_scores_tell_accuracy_and_f1_without_labels() -> None:
    probabilities, targets = _calibrated(0, 20_000)
    found, chosen = expected(probabilities), probabilities.argmax(axis=1)
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx((chosen == targets).mean(), abs=0.01)
    f1s = [2 * ((chosen == k) & (targets == k)).sum() / ((chosen == k).sum() + (targets == k).sum()) for k in range(4)]
    assert found.macro_f1 == pytest.approx(np.mean(f1s), abs=0.01)


def test_the_interval_holds_the_accuracy_19_times_in_20() -> None:
    held = 0
    for seed in range(400):
        probabilities, targets = _calibrated(seed, 100)
        interval = expected(probabilities).accuracy
        assert interval is not None
        held += interval.low <= (probabilities.argmax(axis=1) == targets).mean() <= interval.high
    assert 0.91 <= held / 400 <= 0.99


@given(st.integers(0, 50), st.integers(0, 50))
@settings(deadline=None, max_examples=30)
def test_parts_add_up_to_the_whole(first: int, second: int) -> None:
    probabilities, _ = _calibrated(1, 100)
    parts = expected(probabilities[:first]) + expected(probabilities[first : first + second])
    whole = expected(probabilities[: first + second])
    assert parts.n == whole.n
    for name in ("correct", "variance", "hits", "predicted", "actual"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name)), name


def test_best_scores_alone_tell_the_accuracy_but_no_f1() -> None:
    probabilities, _ = _calibrated(2, 50)
    found, of_all = expected_of_scores(probabilities.max(axis=1)), expected(probabilities)
    assert found.accuracy == pytest.approx(of_all.accuracy)
    assert found.macro_f1 is None
    assert (found + of_all).macro_f1 == of_all.macro_f1


def test_nothing_scored_has_no_accuracy() -> None:
    assert Expected().accuracy is None
    assert Expected().macro_f1 is None
    assert realised([]) is None


def test_labels_tell_whether_the_scores_can_be_trusted() -> None:
    honest = realised([Labelled(turn % 10 != 0, 0.9) for turn in range(200)])
    misled = realised([Labelled(turn % 2 == 0, 0.9) for turn in range(200)])
    assert honest is not None and misled is not None
    assert honest.accuracy.value == 0.9 and not honest.misled
    assert misled.accuracy.value == 0.5 and misled.misled


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)]
)
def test_wilsons_interval(right: int, n: int, low: float, high: float) -> None:
    found = wilson(right, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
