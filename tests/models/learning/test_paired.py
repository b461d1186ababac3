from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.evaluation import macro_f1
from models.learning.paired import fewest_gained, holm, macro_f1_gain, macro_f1_over, mcnemar
from tests.models.learning.simulated import MANY, RARE, SPAM, TONE, world, world_at_the_margin

COLUMNS = arrays.arrays(np.int64, st.shared(st.integers(1, 25), key="n"), elements=st.integers(0, 2))


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == 1 / 32
    assert mcnemar(0, 5) == 1.0
    assert mcnemar(3, 1) == 5 / 16  # (4 + 1) / 16
    assert mcnemar(12, 3) == pytest.approx(0.017578125)  # (455 + 105 + 15 + 1) / 32768
    assert 0.025 < mcnemar(3000, 2850) < 0.026  # thousands, as exactly


@given(st.integers(0, 25), st.integers(0, 25))
def test_mcnemar_is_a_tail(gained: int, lost: int) -> None:
    both = mcnemar(gained, lost) + mcnemar(lost, gained)
    assert 1 <= both <= 2  # what is just as seen counts in both tails
    assert mcnemar(gained + 1, lost) < mcnemar(gained, lost)
    assert mcnemar(gained, lost + 1) > mcnemar(gained, lost) or gained == 0


@settings(max_examples=30)
@given(st.integers(0, 30), st.sampled_from([0.001, 0.01, 0.05]))
def test_the_fewest_gained_are_just_enough(lost: int, alpha: float) -> None:
    needed = fewest_gained(lost, alpha)
    assert mcnemar(needed, lost) <= alpha < mcnemar(needed - 1, lost)


def test_mcnemar_rejects_at_most_its_level_of_what_is_true() -> None:
    """Exactly: over all outcomes of n differing texts, each as likely gained as lost."""
    for n, alpha in itertools.product((1, 7, 20, 61), (0.01, 0.05)):
        chance = sum(mcnemar(k, n - k) - (mcnemar(k + 1, n - k - 1) if k < n else 0) for k in range(n + 1)
                     if mcnemar(k, n - k) <= alpha)  # fmt: skip
        assert chance <= alpha


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05) == [True, False, False, True]  # 0.005 < 1/80, 0.01 < 1/60, 0.03 > 1/40
    assert holm([0.06, 0.9], 0.05) == [False, False]
    assert holm([], 0.05) == []


@settings(max_examples=40)
@given(COLUMNS, COLUMNS)
def test_macro_f1_is_the_one_of_evaluation_where_only_true_labels_are_given(
    targets: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]
) -> None:
    chosen = np.where(np.isin(chosen, targets), chosen, targets)
    found = macro_f1_over(targets, chosen, np.ones((1, len(targets))))[0]
    assert found == pytest.approx(macro_f1(targets, chosen, ("a", "b", "c")))
    twice = macro_f1_over(np.repeat(targets, 2), np.repeat(chosen, 2), np.ones((1, 2 * len(targets))))
    assert twice[0] == pytest.approx(found)


def test_a_label_that_nothing_truly_has_costs_what_got_it_but_no_class() -> None:
    targets, chosen = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    assert macro_f1_over(targets, chosen, np.ones((1, 4)))[0] == pytest.approx((2 / 3 + 1) / 2)


def test_the_gain_is_held_by_its_bounds_and_is_its_own_mirror() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 400)
    before = np.where(rng.random(400) < 0.9, targets, (targets + 1) % 3)
    after = np.where(rng.random(400) < 0.95, targets, (targets + 2) % 3)
    found, mirror = macro_f1_gain(targets, before, after), macro_f1_gain(targets, after, before)
    assert found.low < found.estimate < found.high
    assert mirror == pytest.approx((-found.estimate, -found.high, -found.low), abs=0.004)  # other random numbers
    assert found == macro_f1_gain(targets, before, after)  # the same seed
    order = rng.permutation(400)
    assert found == pytest.approx(macro_f1_gain(targets[order], before[order], after[order]))


def test_where_both_always_agree_few_texts_still_prove_little() -> None:
    few, many = np.arange(40) % 2, np.arange(2000) % 2
    assert macro_f1_gain(few, few, few).low < -0.05
    assert -0.002 < macro_f1_gain(many, many, many).low < 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shares", "both_wrong", "gained", "texts", "margin"),
    [
        (SPAM, 0.02, 0.0, 300, 0.02), (SPAM, 0.02, 0.005, 800, 0.01), (TONE, 0.1, 0.01, 500, 0.01),
        (TONE, 0.1, 0.01, 1000, 0.02), (RARE, 0.1, 0.0, 300, 0.02), (MANY, 0.1, 0.005, 300, 0.02),
    ],
)  # fmt: skip
def test_one_that_is_worse_by_the_margin_passes_no_more_than_once_in_twenty(
    shares: tuple[float, ...], both_wrong: float, gained: float, texts: int, margin: float
) -> None:
    runs, rng = 500, np.random.default_rng(11)
    boundary = world_at_the_margin(shares, both_wrong, gained, margin)
    assert boundary.gain == pytest.approx(-margin)
    passed = sum(boundary.passes(rng, texts, margin) for _ in range(runs))
    assert passed / runs <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shares", "texts", "differing", "least"),
    [(SPAM, 800, 0.01, 0.6), (TONE, 1000, 0.02, 0.7), (MANY, 1000, 0.02, 0.95)],
)
def test_one_that_is_as_good_mostly_passes(
    shares: tuple[float, ...], texts: int, differing: float, least: float
) -> None:
    runs, rng = 150, np.random.default_rng(12)
    alike = world(shares, 0.05, differing / 2, differing / 2)
    assert sum(alike.passes(rng, texts, 0.02) for _ in range(runs)) / runs >= least
