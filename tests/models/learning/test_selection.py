import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learning.selection import (
    DAY_S,
    LEAST_TYPICAL,
    NEIGHBOURS,
    RANDOM_SHARE,
    DailyBudget,
    informative,
    labels_to_reach,
    picked,
    typicality,
    uncertainty,
)

MIDNIGHT_S = 20_000 * DAY_S
NOON_S = MIDNIGHT_S + DAY_S / 2


def test_uncertainty_is_what_the_second_label_has() -> None:
    unsure = uncertainty(np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.4, 0.1, 0.5]]))
    assert unsure.tolist() == pytest.approx([0.0, 1.0, 0.9])


def test_one_question_in_many_wordings_is_asked_once() -> None:
    vectors = np.array([[1.0, 0.001 * turn, 0.0] for turn in range(20)] + [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    unsure = np.array([0.9] * 20 + [0.5, 0.4])
    first = informative(unsure, vectors, 3)
    assert first[0] < 20
    assert first[1:] == [20, 21]


def test_among_equally_new_texts_the_unsure_ones_go_first() -> None:
    assert informative(np.array([0.1, 0.9, 0.5]), np.eye(3), 3) == [1, 2, 0]


def test_what_is_like_nothing_else_is_asked_last() -> None:
    """Of a group of texts, and one far from all of them, the model is as unsure."""
    generator = np.random.default_rng(5)
    group = np.array([1.0, 0, 0, 0, 0, 0]) + generator.normal(scale=0.3, size=(30, 6))
    vectors = np.vstack([[-1.0, 0, 0, 0, 0, 0], group])
    assert 0 not in informative(np.full(31, 0.9), vectors, 10)


@pytest.mark.parametrize("texts", [0, 1, 2, 11, 40, 1100])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_likeness_of_neighbours_is_that_of_the_nearest_ones(texts: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(texts, 3))
    found = typicality(vectors)
    assert found.shape == (texts,)
    for place, vector in enumerate(vectors):
        others = np.delete(vectors, place, axis=0)
        cosines = others @ vector / np.linalg.norm(others, axis=1) / np.linalg.norm(vector)
        nearest = np.sort(cosines)[-NEIGHBOURS:]
        assert found[place] == pytest.approx(max(LEAST_TYPICAL, nearest.mean()) if texts > 1 else 1.0)


def test_what_is_known_already_is_asked_last() -> None:
    assert informative(np.array([0.9, 0.2]), np.eye(2), 2, known=np.array([[2.0, 0.0]])) == [1, 0]


@given(st.integers(0, 30), st.integers(0, 40), st.integers(0, 5))
@settings(deadline=None)
def test_no_text_is_picked_twice_and_no_more_than_there_are(texts: int, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    picks = picked(generator.random(texts), generator.normal(size=(texts, 4)), count, seed)
    places = [one.place for one in picks]
    assert len(places) == len(set(places)) == min(texts, count)
    assert all(0 <= place < texts for place in places)


def test_a_share_is_drawn_at_random_also_one_by_one() -> None:
    unsure, vectors = np.linspace(0, 1, 50), np.eye(50)
    many = picked(unsure, vectors, 20, seed=3)
    assert sum(one.why == "random" for one in many) == pytest.approx(20 * RANDOM_SHARE, abs=1)
    alone = [picked(unsure, vectors, 1, seed)[0] for seed in range(1000)]
    assert sum(one.why == "random" for one in alone) == pytest.approx(1000 * RANDOM_SHARE, abs=50)
    assert {one.place for one in alone if one.why == "informative"} == {49}
    assert len({one.place for one in alone if one.why == "random"}) > 40


def test_what_is_drawn_at_random_is_drawn_from_the_sample_alone() -> None:
    unsure, vectors, sample = np.linspace(0, 1, 50), np.eye(50), [3, 5, 8]
    picks = [one for seed in range(200) for one in picked(unsure, vectors, 4, seed, sample=sample, share=0.5)]
    assert {one.place for one in picks if one.why == "random"} == set(sample)
    assert sum(one.why == "random" for one in picks) == 400
    few = picked(unsure, vectors, 10, 1, sample=sample, share=0.5)
    assert sum(one.why == "random" for one in few) == 3 and len(few) == 10
    assert {one.why for one in picked(unsure, vectors, 10, 1, sample=[], share=0.5)} == {"informative"}


def test_a_budget_is_spent_evenly_and_anew_each_day() -> None:
    budget = DailyBudget(100)
    assert budget.allowed(MIDNIGHT_S) == 0
    assert budget.allowed(NOON_S) == 50
    budget.spend(50, NOON_S)
    assert budget.allowed(NOON_S) == 0
    assert budget.left(NOON_S) == 50
    assert budget.allowed(NOON_S + DAY_S / 4) == 25
    assert budget.allowed(NOON_S + DAY_S) == 50


def test_a_burst_is_paid_by_the_rest_of_the_day() -> None:
    budget = DailyBudget(100)
    budget.spend(budget.left(NOON_S), NOON_S)
    assert budget.allowed(MIDNIGHT_S + DAY_S - 1) == budget.left(MIDNIGHT_S + DAY_S - 1) == 0
    assert budget.left(MIDNIGHT_S + DAY_S) == 100


def test_after_a_restart_what_was_asked_today_counts() -> None:
    budget = DailyBudget(100, asked=40, since_s=NOON_S - 60)
    assert budget.allowed(NOON_S) == 10


@given(st.lists(st.tuples(st.floats(0, 5 * DAY_S), st.integers(0, 10)), max_size=60), st.integers(0, 40))
@settings(deadline=None)
def test_no_day_gets_more_than_its_budget(asks: list[tuple[float, int]], labels_a_day: int) -> None:
    budget, spent = DailyBudget(labels_a_day), dict.fromkeys(range(6), 0)
    for now_s, wish in sorted(asks):
        labels = min(wish, budget.allowed(now_s))
        budget.spend(labels, now_s)
        spent[int(now_s // DAY_S)] += labels
    assert max(spent.values()) <= labels_a_day


def test_labels_to_reach_a_level_for_good() -> None:
    curve = [(100, 0.5), (200, 0.7), (300, 0.65), (400, 0.75)]
    assert labels_to_reach(curve, 0.7) == pytest.approx(350)
    assert labels_to_reach(curve, 0.4) == 100
    assert labels_to_reach(curve, 0.8) is None
