from __future__ import annotations

import numpy as np
import pytest

from models.learning.judging import Lessons, insider, outsider


def cloud(centre: list[float], count: int, seed: int, spread: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(centre, spread, (count, 3)).astype(np.float32)


HAM, SCAM, NEAR_SCAM = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.8, 0.6]


def campaign() -> tuple[Lessons, list[list[int]]]:
    """Annotator 0 calls 30 texts of one wording ham, which are rather like scam; annotators 1 and 2 are honest."""
    known = np.concatenate([cloud(HAM, 30, 1), cloud(SCAM, 30, 2)])
    asked = np.concatenate([cloud(NEAR_SCAM, 30, 3), cloud(HAM, 15, 4), cloud(SCAM, 15, 5)])
    targets = np.repeat([0, 1, 0, 0, 1], [30, 30, 30, 15, 15])
    return Lessons(known, targets[:60], asked, targets[60:], 2), [[0]] * 30 + [[1]] * 15 + [[2]] * 15


def test_nobody_is_graded_by_what_they_taught_themselves() -> None:
    """Who learned from the campaign believes it; the judge that grades its annotator did not."""
    lessons, annotators = campaign()
    graded, (believed, _) = outsider(lessons, annotators), insider(lessons, 0.03, seed=1)
    assert (graded.probabilities[:30, 1] > 0.5).all()
    assert (believed.probabilities[:30, 0] > 0.5).all()
    assert np.allclose(graded.probabilities.sum(axis=1), 1) and graded.knows.all()


def test_a_text_of_several_annotators_is_judged_without_any_of_them() -> None:
    lessons, annotators = campaign()
    together = [[0, 1]] * 30 + annotators[30:]
    assert (outsider(lessons, together).probabilities[:30, 1] > 0.5).all()


def test_labels_that_hardly_anybody_taught_are_not_known() -> None:
    lessons, annotators = campaign()
    targets = lessons.asked_targets.copy()
    targets[:9] = 2
    lessons = lessons._replace(asked_targets=targets, labels=3)
    assert not outsider(lessons, annotators).knows[:, 2].any()
    judgment, suspects = insider(lessons, 0.03, seed=1)
    assert not judgment.knows[:, 2].any()
    assert not [one for one in suspects if one.given == 2]


@pytest.mark.parametrize("most_lost", [0.0, 0.02, 0.1])
def test_vectors_that_part_labels_badly_cost_no_more_right_labels_than_allowed(most_lost: float) -> None:
    """Two clouds that overlap widely, all labels right: of the texts in question about as many are lost as allowed."""
    vectors = np.concatenate([cloud([1.0, 0.5, 0.0], 400, 6, 0.6), cloud([0.5, 1.0, 0.0], 400, 7, 0.6)])
    targets = np.repeat([0, 1], 400)
    order = np.random.default_rng(8).permutation(800)
    known, asked = order[:400], order[400:]
    lessons = Lessons(vectors[known], targets[known], vectors[asked], targets[asked], 2)
    _, suspects = insider(lessons, most_lost, seed=2)
    assert len(suspects) / 400 <= most_lost + 0.03
    assert most_lost < 0.1 or suspects


def test_too_little_to_learn_from_suspects_nobody() -> None:
    nothing = Lessons(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), cloud(HAM, 4, 9), np.zeros(4, np.int64), 2)
    judgment, suspects = insider(nothing, 0.03, seed=1)
    assert not judgment.probabilities.any() and not suspects
    assert not outsider(nothing, [[0]] * 4).probabilities.any()
