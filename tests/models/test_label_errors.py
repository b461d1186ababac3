import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import BadDataset
from models.label_errors import confident_joint, joint_counts, label_errors, out_of_fold


def clouds(each: int, labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of well-parted labels, and the true label of each."""
    chooser = np.random.default_rng(seed)
    centres = 3 * np.eye(labels, 8)
    targets = np.repeat(np.arange(labels), each)
    return (centres[targets] + chooser.normal(0, 0.7, (len(targets), 8))).astype(np.float32), targets


def test_planted_errors_are_found() -> None:
    """A tenth of the labels changed to another at random: almost all of these are named, and hardly any else."""
    vectors, truth = clouds(120, 4, seed=3)
    chooser = np.random.default_rng(4)
    planted = set(chooser.choice(len(truth), len(truth) // 10, replace=False).tolist())
    given = truth.copy()
    for row in planted:
        given[row] = (truth[row] + chooser.integers(1, 4)) % 4
    suspects = label_errors(out_of_fold(vectors, given), given)
    found = {suspect.row for suspect in suspects}
    assert len(found & planted) >= 0.9 * len(planted)
    assert len(found & planted) >= 0.8 * len(found)
    assert {suspect.row for suspect in suspects[:20]} <= planted
    right = [suspect.suggested == truth[suspect.row] for suspect in suspects if suspect.row in planted]
    assert sum(right) >= 0.9 * len(right)
    assert [suspect.margin for suspect in suspects] == sorted((suspect.margin for suspect in suspects), reverse=True)


def test_the_confident_joint_by_hand() -> None:
    """Five rows of two labels: the last is given as 0 and confidently 1, the one before it is confidently neither."""
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [0.3, 0.7], [0.05, 0.95]])
    targets = np.array([0, 0, 1, 1, 0])
    # t_0 = mean(0.9, 0.5, 0.05) = 0.483, t_1 = mean(0.9, 0.7) = 0.8
    assert confident_joint(probabilities, targets).tolist() == [[2, 1], [0, 1]]
    assert joint_counts(probabilities, targets).tolist() == [[2.0, 1.0], [0.0, 2.0]]
    [suspect] = label_errors(probabilities, targets)
    assert (suspect.row, suspect.given, suspect.suggested) == (4, 0, 1)
    assert suspect.margin == pytest.approx(0.9)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 5), st.integers(2, 30), st.integers(0, 100))
def test_counts_add_up_and_suspects_are_likelier_elsewhere(labels: int, rows: int, seed: int) -> None:
    chooser = np.random.default_rng(seed)
    probabilities = chooser.dirichlet(np.ones(labels), rows)
    targets = chooser.integers(0, labels, rows)
    counts = joint_counts(probabilities, targets)
    given = np.bincount(targets, minlength=labels)
    assert np.allclose(counts.sum(axis=1)[given > 0], given[given > 0])
    suspects = label_errors(probabilities, targets)
    assert len({suspect.row for suspect in suspects}) == len(suspects)
    for row, label, suggested, margin in suspects:
        assert label == targets[row] and margin == probabilities[row, suggested] - probabilities[row, label] > 0


def test_probabilities_are_out_of_fold_and_repeatable() -> None:
    vectors, targets = clouds(20, 3, seed=1)
    probabilities = out_of_fold(vectors, targets, folds=4, seed=2)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities == out_of_fold(vectors, targets, folds=4, seed=2)).all()
    alone = np.append(targets, 3)  # a label that occurs once: no model that has not seen it knows it
    lonely = out_of_fold(np.vstack([vectors, np.ones((1, 8), np.float32)]), alone, folds=4)
    assert lonely[-1, 3] == 0 and lonely[-1].sum() == pytest.approx(1)


@pytest.mark.parametrize("targets", [[0] * 20, [0, 1, 0, 1], []])
def test_too_little_is_an_error(targets: list[int]) -> None:
    with pytest.raises(BadDataset, match="label errors need two labels and 10 examples"):
        out_of_fold(np.ones((len(targets), 4), np.float32), np.array(targets, np.int64))
