from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learning.annotators import Votes, agreed, grades
from models.learning.curation import CurationSettings

LABELS = ("ham", "scam", "spam")


def crowd(right: list[float], texts: int, each: int, seed: int) -> tuple[Votes, np.ndarray]:
    """Texts of three labels, each labelled by so many annotators, of whom each is right as often as said."""
    chooser = np.random.default_rng(seed)
    truth = chooser.integers(0, 3, texts)
    rows = []
    for text in range(texts):
        for voter in chooser.choice(len(right), each, replace=False):
            wrong = chooser.random() > right[voter]
            rows.append((text, voter, (truth[text] + wrong * chooser.integers(1, 3)) % 3))
    text, voter, label = np.array(rows, np.int64).T
    return Votes(text, voter, label, 3), truth


def test_reliable_annotators_outvote_many_bad_ones() -> None:
    """Two who are nearly always right against three who guess: the truth is what the two say, not the majority."""
    votes, truth = crowd([0.97, 0.95, 0.4, 0.4, 0.4], 400, 5, seed=1)
    result = agreed(votes, 400, 5)
    counts = np.zeros((400, 3))
    np.add.at(counts, (votes.text, votes.label), 1)
    majority = (counts.argmax(axis=1) == truth).mean()
    found = (result.probabilities.argmax(axis=1) == truth).mean()
    assert found >= 0.96 > majority + 0.03
    assert result.right == pytest.approx([0.97, 0.95, 0.4, 0.4, 0.4], abs=0.06)


def test_who_always_lies_is_as_good_as_a_witness() -> None:
    """An annotator who always says the next label tells what the true one is."""
    votes, truth = crowd([0.95, 0.95, 0.95], 300, 3, seed=2)
    both = Votes(
        np.append(votes.text, np.arange(300)),
        np.append(votes.voter, np.full(300, 3)),
        np.append(votes.label, (truth + 1) % 3),
        3,
    )
    result = agreed(both, 300, 4)
    assert (result.probabilities.argmax(axis=1) == truth).mean() >= 0.98
    assert result.right[3] < 0.1


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 2)), unique_by=lambda one: one[:2]),
    st.randoms(use_true_random=False),
)
def test_probabilities_are_probabilities_in_whatever_order_votes_come(
    rows: list[tuple[int, int, int]], chooser: random.Random
) -> None:
    text, voter, label = np.array(rows, np.int64).reshape(-1, 3).T
    votes = Votes(text, voter, label, 3)
    result = agreed(votes, 6, 4)
    assert np.allclose(result.probabilities.sum(axis=1), 1) and np.allclose(result.without.sum(axis=1), 1)
    assert ((result.right > 0) & (result.right <= 1)).all()
    order = np.array(chooser.sample(range(len(rows)), len(rows)), np.int64)
    other = agreed(Votes(text[order], voter[order], label[order], 3), 6, 4)
    assert np.allclose(result.probabilities, other.probabilities)


def test_a_lone_opinion_is_worth_what_its_annotator_is() -> None:
    """Where the others are silent, `without` knows nothing but how common labels are."""
    votes, _ = crowd([0.95, 0.95, 0.5], 300, 2, seed=3)
    more = Votes(np.append(votes.text, [300, 301]), np.append(votes.voter, [0, 2]), np.append(votes.label, [1, 1]), 3)
    result = agreed(more, 302, 3)
    assert result.probabilities[300, 1] > 0.9 > 0.7 > result.probabilities[301, 1]
    assert result.without[-1] == pytest.approx(result.without[-2])


def graded(right: list[float], seed: int, **knobs: object) -> dict[str, str | None]:
    votes, _ = crowd(right, 300, 2, seed)
    names = [f"a{number}" for number in range(len(right))]
    result = agreed(votes, 300, len(right))
    comparable = np.ones(len(votes.text), bool)
    found = grades(names, LABELS, votes, result, comparable, CurationSettings.model_validate(knobs))
    return {name: grade.quarantined for name, grade in found.items()}


def test_only_who_is_surely_worse_than_usual_is_quarantined() -> None:
    found = graded([0.95, 0.9, 0.92, 0.85, 0.05], seed=4)
    assert [name for name, why in found.items() if why] == ["a4"]
    assert "agrees with the others on" in str(found["a4"]) and "is usual" in str(found["a4"])
    assert not any(graded([0.95, 0.9, 0.92, 0.85, 0.05], seed=4, trusted=["a4"]).values())
    assert not any(graded([0.95, 0.9, 0.92, 0.85, 0.05], seed=4, least_compared=1000).values())


@pytest.mark.parametrize("seed", range(8))
def test_honest_annotators_of_one_skill_are_never_quarantined(seed: int) -> None:
    assert not any(graded([0.8] * 6, seed).values())


def test_who_hides_one_label_is_found_by_that_label() -> None:
    """Right on everything but scam, which is one text in three: named for that, in words."""
    votes, truth = crowd([0.95] * 4, 400, 3, seed=5)
    lies = (votes.voter == 0) & (truth[votes.text] == 1)
    votes = Votes(votes.text, votes.voter, np.where(lies, 0, votes.label), 3)
    result = agreed(votes, 400, 4)
    names = ["ann", "ben", "cem", "dee"]
    found = grades(names, LABELS, votes, result, np.ones(len(votes.text), bool), CurationSettings(least_agreement=0.5))
    assert "'scam'" in str(found["ann"].quarantined)
    assert not any(found[name].quarantined for name in names[1:])
    assert found["ann"].opinions == found["ann"].shared == (votes.voter == 0).sum()
