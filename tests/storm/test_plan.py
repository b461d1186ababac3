"""The plan: a seed gives one, and it has everything that was asked for."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storm.cluster import Cluster
from tests.storm.events import POISON
from tests.storm.faults import Faults
from tests.storm.fleet import WORKER, Fleet
from tests.storm.plan import ALL, DECKS, GROUPS, KINDS, MOST_WORKERS, SECONDS, make_plan

seeds = st.integers(0, 2**31)
onlies = st.sampled_from([*GROUPS, "all"])
SESSION_S = 6.0


@settings(deadline=None, max_examples=30)
@given(seeds, onlies, st.integers(0, 80), st.integers(0, 100))
def test_a_seed_gives_one_plan_with_all_that_was_asked_for(seed: int, only: str, faults: int, poison: int) -> None:
    plan = make_plan(seed, 500, faults, poison, only, SESSION_S)  # type: ignore[arg-type]
    assert plan == make_plan(seed, 500, faults, poison, only, SESSION_S)  # type: ignore[arg-type]
    assert (len(plan.faults), len(plan.poison)) == (faults, poison)
    marks = [fault.at_event for fault in plan.faults]
    assert all(before < after for before, after in pairwise(marks))
    assert all(0 < mark < 500 for mark in marks)
    assert plan.poison.keys() <= set(range(500))


@settings(deadline=None, max_examples=30)
@given(seeds, onlies)
def test_a_whole_deck_has_every_kind_as_often_as_it_says(seed: int, only: str) -> None:
    deck = ALL if only == "all" else DECKS[only]  # type: ignore[index]
    plan = make_plan(seed, 1000, len(deck), 0, only, SESSION_S)  # type: ignore[arg-type]
    assert Counter(fault.kind for fault in plan.faults) == Counter(deck)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_faults_last_as_long_as_their_kind(seed: int) -> None:
    for fault in make_plan(seed, 1000, 200, 0, "all", SESSION_S).faults:
        if fault.kind == "pause":
            assert fault.seconds > SESSION_S
        elif fault.kind == "cut-off":
            assert fault.seconds == 2 * SESSION_S
        else:
            low, high = SECONDS.get(fault.kind, (0, 0))
            assert low <= fault.seconds <= high


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_every_scaling_changes_the_number_of_workers(seed: int) -> None:
    counts = [one.target for one in make_plan(seed, 1000, 100, 0, "rebalance", SESSION_S).faults if one.kind == "scale"]
    assert all(1 <= count <= MOST_WORKERS for count in counts)
    assert all(before != after for before, after in pairwise(counts))


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(0, 400))
def test_poison_is_of_every_kind_alike(seed: int, poison: int) -> None:
    counts = Counter(make_plan(seed, 1000, 0, poison, "process", SESSION_S).poison.values())
    assert max(counts.values(), default=0) - min((counts[kind] for kind in POISON), default=0) <= 1


def test_two_seeds_differ() -> None:
    one, other = (make_plan(seed, 1000, 20, 50, "all", SESSION_S) for seed in (1, 2))
    assert one.faults != other.faults and one.poison != other.poison


@pytest.mark.parametrize(("events", "faults", "poison"), [(10, 10, 0), (10, 2, 11)])
def test_more_than_there_are_events_is_refused(events: int, faults: int, poison: int) -> None:
    with pytest.raises(ValueError, match="10 events are too few"):
        make_plan(1, events, faults, poison, "all", SESSION_S)


def test_every_kind_can_be_carried_out() -> None:
    cluster = Cluster(Path("never-made"), 1)
    faults = Faults(cluster, Fleet(cluster, WORKER, {}, Path("never-made")), {})
    assert faults.kinds == KINDS
