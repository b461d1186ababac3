from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learning.paired import mcnemar
from models.learning.sequential import FRACTIONS, Duel, DuelSettings, Tally, bounds, log_e, standing
from tests.models.learning.simulated import e_table, streams

SETTINGS = DuelSettings(fewest_labels=10, most_labels=400)
COUNTS = st.integers(0, 200)
MEANS = st.floats(-0.9, 0.9)


def duels(outcomes: str) -> list[Duel]:
    """A letter a text: c and k are right of challenger and champion alone, b of both, n of neither."""
    answers = {"c": ("bad", "good"), "k": ("good", "bad"), "b": ("good", "good"), "n": ("bad", "bad")}
    return [Duel(f"text {row}", "good", *answers[letter]) for row, letter in enumerate(outcomes)]


@pytest.mark.parametrize("mean", [-0.4, 0.0, 0.25])
@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_wealth_is_a_fair_game_at_the_boundary(mean: float, n: int) -> None:
    """Over all outcomes of n texts whose mean is just what is claimed, the expected e-value is 1."""
    gained = 0.15 + max(mean, 0)
    lost = gained - mean
    expected = 0.0
    for plus, minus in itertools.product(range(n + 1), repeat=2):
        if (tied := n - plus - minus) >= 0:
            ways = math.comb(n, plus) * math.comb(n - plus, minus)
            chance = ways * gained**plus * lost**minus * (1 - gained - lost) ** tied
            expected += chance * math.exp(log_e(plus, minus, tied, mean))
    assert expected == pytest.approx(1.0)


@given(COUNTS, COUNTS, COUNTS, MEANS, MEANS)
def test_the_more_is_claimed_the_less_speaks_against_it(g: int, k: int, tied: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert log_e(g, k, tied, low) >= log_e(g, k, tied, high) - 1e-9


@settings(max_examples=25)
@given(COUNTS, COUNTS, COUNTS)
def test_the_bounds_hold_what_was_seen_and_mirror(gained: int, lost: int, tied: int) -> None:
    tally = Tally(gained=gained, lost=lost, both_right=tied)
    low, high = bounds(tally, 0.05, 0.05)
    assert low - 1e-9 <= (gained - lost) / max(1, tally.n) <= high + 1e-9
    assert bounds(Tally(gained=lost, lost=gained, both_right=tied), 0.05, 0.05) == pytest.approx((-high, -low))
    wider = bounds(tally, 0.01, 0.01)
    assert wider[0] <= low + 1e-9
    assert wider[1] >= high - 1e-9


def test_without_labels_nothing_is_known() -> None:
    found = standing([], SETTINGS)
    assert (found.action, found.tally.n, found.looks) == ("go on", 0, ())
    assert (found.low, found.high) == pytest.approx((-1, 1))


def test_a_better_challenger_is_promoted_and_a_worse_one_rolled_back() -> None:
    good, bad = standing(duels("cb" * 100), SETTINGS), standing(duels("kn" * 100), SETTINGS)
    assert (good.action, bad.action) == ("promote", "roll back")
    assert good.tally.n == bad.tally.n < 40
    assert good.looks[-1].e_better >= 20 > good.looks[-2].e_better
    assert good.low > 0 > bad.high
    assert good.reason.startswith(f"better: of {good.tally.n} labelled texts {good.tally.gained} gained and 0 lost")


def test_one_that_is_alike_goes_on_until_it_is_given_up() -> None:
    assert standing(duels("ckbn" * 99), SETTINGS).action == "go on"
    assert standing(duels("ckbn" * 100), SETTINGS).action == "give up"
    assert standing(duels("b" * 399), SETTINGS).action == "go on"


def test_a_few_labels_decide_nothing() -> None:
    many = DuelSettings(fewest_labels=60, most_labels=400)
    assert standing(duels("c" * 59), many).action == "go on"
    assert standing(duels("c" * 60), many).action == "promote"


def test_the_first_decision_stands() -> None:
    found = standing(duels("c" * 40 + "k" * 300), SETTINGS)
    assert found.action == "promote"
    assert found.tally.n < 40


def test_copies_of_a_text_are_no_new_evidence() -> None:
    copies = [Duel("You WON  a prize" if row % 2 else "you won a prize", "scam", "benign", "scam") for row in range(99)]
    found = standing(copies, SETTINGS)
    assert (found.action, found.tally.n, found.tally.gained) == ("go on", 1, 1)


def test_margins_ask_for_more_or_less() -> None:
    alike = duels("ck" + "b" * 18)
    many = [Duel(f"{one.text} {turn}", one.label, one.champion, one.challenger) for turn in range(30) for one in alike]
    tolerant = SETTINGS.model_copy(update={"better_by": -0.05, "most_labels": 2000})
    assert standing(many, SETTINGS.model_copy(update={"most_labels": 2000})).action == "go on"
    assert standing(many, tolerant).action == "promote"  # as good, which is all that was asked


def test_looks_are_thinned_and_the_last_is_kept() -> None:
    settings = SETTINGS.model_copy(update={"most_labels": 5000})
    found = standing(duels("ckbn" * 700), settings)
    assert len(found.looks) <= 601
    assert found.looks[-1].n == found.tally.n == 2800


def test_the_table_of_the_simulation_is_the_product() -> None:
    table = e_table(30)
    for gained, lost in ((0, 0), (7, 3), (29, 0), (12, 29)):
        assert table[gained, lost] == pytest.approx(log_e(gained, lost, 17))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
def test_looking_after_every_label_promotes_no_more_than_one_in_twenty(share: float) -> None:
    """10,000 labels, challenger as good as the champion: a decision of either kind is false."""
    runs, labels = 2000, 10_000
    table, limit = e_table(int(labels * share / 2 * 1.5) + 60), math.log(20)
    promoted = taken_back = 0
    for gained, lost in streams(7, runs, share / 2, share / 2, labels):
        promoted += bool((table[gained, lost] >= limit).any())
        taken_back += bool((table[lost, gained] >= limit).any())
    assert 0.001 < promoted / runs <= 0.05
    assert 0.001 < taken_back / runs <= 0.05


@pytest.mark.slow
def test_the_control_that_tests_again_and_again_without_paying_is_wrong_far_more_often() -> None:
    runs, labels = 400, 4000
    p_values = {(g, k): mcnemar(g, k) for g in range(330) for k in range(330) if 0 < g - k < 90}
    wrong = 0
    for gained, lost in streams(7, runs, 0.05, 0.05, labels):
        pairs = {*zip(gained[29:].tolist(), lost[29:].tolist(), strict=True)}
        wrong += any(p_values.get(pair, 1.0) <= 0.05 for pair in pairs)
    assert wrong / runs > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("gained", "lost"), [(0.02, 0.02), (0.1, 0.04), (0.0, 0.05)])
def test_the_bounds_hold_the_truth_at_all_times_at_once(gained: float, lost: float) -> None:
    """With alpha 5%: the truth is left out if it is rejected from either side at a level of 2.5%, at any time."""
    runs, labels, missed = 400, 2000, 0
    mean, limit = gained - lost, -math.log(0.025)
    for plus, minus in streams(3, runs, gained, lost, labels):
        tied = np.arange(1, labels + 1) - plus - minus
        above = [
            plus * np.log1p(bet * (1 - mean)) + tied * np.log1p(-bet * mean) + minus * np.log1p(-bet * (1 + mean))
            for bet in FRACTIONS / (1 + mean)
        ]
        below = [
            minus * np.log1p(bet * (1 + mean)) + tied * np.log1p(bet * mean) + plus * np.log1p(-bet * (1 - mean))
            for bet in FRACTIONS / (1 - mean)
        ]
        wealth = [np.logaddexp.reduce(side, axis=0) - math.log(len(FRACTIONS)) for side in (above, below)]
        missed += bool((np.maximum(*wealth) >= limit).any())
    assert missed / runs <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.slow
@pytest.mark.parametrize(("gained", "lost", "most"), [(0.15, 0.0, 150), (0.1, 0.04, 600), (0.06, 0.04, 4000)])
def test_a_better_one_is_found_and_soon(gained: float, lost: float, most: int) -> None:
    """The median number of labels to a promotion."""
    labels = 8000
    table, limit = e_table(int(labels * max(gained, lost) * 1.3) + 60), math.log(20)
    needed = []
    for plus, minus in streams(5, 300, gained, lost, labels):
        passed = table[plus, minus] >= limit
        needed.append(int(passed.argmax()) + 1 if passed.any() else labels + 1)
    assert np.median(needed) <= most
