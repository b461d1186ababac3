import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.datasets import Example
from models.errors import BadDataset
from models.evaluation import label_scores, macro_f1, target_indices

LABELS = ("a", "b", "c")
COLUMNS = arrays.arrays(np.int64, st.shared(st.integers(1, 30), key="n"), elements=st.integers(0, 2))


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


def test_unknown_labels_and_empty_data_cannot_be_graded() -> None:
    assert target_indices(LABELS, [Example("x", "c"), Example("y", "a")]).tolist() == [2, 0]
    with pytest.raises(BadDataset, match=r"label 'd' is not among the release's labels: a, b, c \(and 1 more"):
        target_indices(LABELS, [Example("x", "e"), Example("x", "d")])
    with pytest.raises(BadDataset, match="no examples"):
        target_indices(LABELS, [])
