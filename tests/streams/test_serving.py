"""Which scorer gets which event: each task of each event is scored by exactly one release."""

from __future__ import annotations

from collections import Counter
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from streams.events import Coordinates, Event
from streams.scoring import Outcome, Scorer
from streams.serving import Challenge, Serving, by_event, in_share
from tests.streams.fakes import LABELS, FakeModel, loaded
from tests.streams.serving import bounds

KEYS = [f"customer-{number}" for number in range(2000)]


def event(key: str) -> Event:
    return Event("chat", Coordinates("chat", 0, 0), key, "2026-03-01T12:00:00.000Z", 0.0, "text", key)


@cache
def scorer(*tasks: str) -> Scorer:
    return Scorer(loaded(FakeModel(heads=dict.fromkeys(tasks, LABELS))), bounds())


def canary(task: str, release: str, share: float) -> Challenge:
    return Challenge(scorer(task, task), task, release, "canary", share)


def test_a_share_is_that_of_the_keys_and_every_release_draws_its_own() -> None:
    first = {key for key in KEYS if in_share(key, "first", 0.2)}
    second = {key for key in KEYS if in_share(key, "second", 0.2)}
    for drawn in (first, second):
        assert 0.16 * len(KEYS) < len(drawn) < 0.24 * len(KEYS)
    assert len(first & second) < 0.07 * len(KEYS)
    assert first <= {key for key in KEYS if in_share(key, "first", 0.3)}, "a share that grows keeps its keys"
    assert not any(in_share(key, "first", 0.0) for key in KEYS) and all(in_share(key, "first", 1.0) for key in KEYS)


@given(st.lists(st.text(max_size=5)), st.floats(0, 1), st.booleans())
def test_each_task_of_each_event_is_scored_once(keys: list[str], share: float, joint: bool) -> None:
    """The outcome of an event is named by who gave it; with a joint champion the canary's stands behind its own."""
    champions = [scorer("risk", "tone")] if joint else [scorer("risk"), scorer("tone")]
    challenge = canary("risk", "new", share)
    serving = Serving(champions, [challenge], ["risk", "tone"])
    events = [event(key) for key in keys]
    parts = serving.parts(events)
    outcomes: list[list[Outcome]] = [
        [(part.scorer.loaded, ())] * (len(events) if part.places is None else len(part.places)) for part in parts
    ]
    for key, row in zip(keys, by_event(parts, outcomes, len(events)), strict=True):
        who = [outcome[0] for outcome in row if isinstance(outcome, tuple)]
        tasks = Counter(task for one in who for task in one.tasks)
        taken = in_share(key, "new", share)
        assert (who[-1] is challenge.scorer.loaded) == taken
        assert tasks == Counter({"risk": 2 if joint and taken else 1, "tone": 1})


def test_without_a_canary_every_scorer_gets_every_event() -> None:
    shadow = canary("risk", "new", 1.0)._replace(mode="shadow")
    serving = Serving([scorer("risk")], [shadow], ["risk"])
    assert [part.places for part in serving.parts([event("a")])] == [None]
    assert serving.releases == {"risk": "fake-1"}
