"""Decisions: what each score means, with an identity that a redelivery repeats, in the shape the schemas promise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from models.out_of_scope import Scope
from models.tasks import LabelPolicy
from streams.decisions import MAX_EVIDENCE_CHARS, decide
from streams.events import WIRE_TYPES, Coordinates, Event, Observation, Output, iso
from streams.live import Served
from streams.settings import load_settings
from streams.trial import Scores
from tests.streams.fakes import served_of, task_of

NOW_S = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
SURGE = load_settings(env={}).surge  # the label `negative` of the task `sentiment`
EVENT = Event(
    source="news", at=Coordinates("news", 2, 41), event_id="e7", event_time=iso(NOW_S - 60),
    event_time_s=NOW_S - 60, text="Shares fell",
    key="ACME", entities=("ACME", "Übel AG"),
)  # fmt: skip
SENTIMENT = ("negative", "neutral", "positive")
WIRE = {
    "predictions": "predictions", "alerts": "alerts", "routes": "routes", "review": "review",
    "dead_letters": "dead-letters",
}  # fmt: skip


def scored(
    probabilities: Sequence[float], labels: Sequence[str], task: str = "risk", review_below: float = 0.5,
    **policies: LabelPolicy,
) -> list[tuple[Served, Scores]]:  # fmt: skip
    rounded = [round(one, 6) for one in probabilities]
    served = served_of(labels, task_of(task, policies, review_below))
    return [(served, (rounded.index(max(rounded)), rounded))]


def outputs(results: Sequence[tuple[Served, Scores]], event: Event = EVENT, now_s: float = NOW_S) -> dict[str, Any]:
    by_name: dict[str, Any] = {}
    for out in decide(event, results, SURGE, iso(now_s)):
        by_name.setdefault(out.name, []).append(out.value)
        check(out)
    return by_name


def value(out: Output) -> dict[str, Any]:
    assert isinstance(out.value, dict)
    return out.value


def check(out: Output) -> None:
    """The value has the fields and types of its wire type and no others, and survives JSON."""
    wire = Observation if out.name == "observations" else WIRE_TYPES[WIRE[out.name]]
    data = orjson.dumps(out.value)
    TypeAdapter(wire).validate_json(data, strict=True)
    assert set(orjson.loads(data)) == wire.__required_keys__
    out.key.encode("utf-8")


def test_a_prediction_in_full() -> None:
    found = outputs(scored([0.125, 0.625, 0.25], SENTIMENT, "tone"))
    assert found == {
        "predictions": [
            {
                "id": "news/2/41/tone",
                "event_id": "e7",
                "event_time": "2026-03-01T11:59:00.000Z",
                "scored_at": "2026-03-01T12:00:00.000Z",
                "task": "tone",
                "release": "fake-1",
                "label": "neutral",
                "score": 0.625,
                "scores": {"negative": 0.125, "neutral": 0.625, "positive": 0.25},
                "out_of_scope": False,
                "source": {"name": "news", "topic": "news", "partition": 2, "offset": 41},
            }
        ]
    }


@pytest.mark.parametrize(("score", "alerts"), [(0.59, 0), (0.6, 1), (0.61, 1), (1.0, 1)])
def test_an_alert_from_the_threshold_on(score: float, alerts: int) -> None:
    policy = LabelPolicy(alert_above=0.6, severity="high")
    found = outputs(scored([1 - score, score], ("benign", "fraud"), review_below=0, fraud=policy))
    assert len(found.get("alerts", [])) == alerts
    for alert in found.get("alerts", []):
        assert (alert["kind"], alert["state"], alert["severity"], alert["subject"]) == ("risk", "open", "high", "ACME")
        assert (alert["id"], alert["label"]) == ("news/2/41/risk/alert/fraud", "fraud")
        assert alert["evidence"] == {"text": "Shares fell", "threshold": 0.6}


@given(st.floats(0.01, 1).map(lambda score: round(score, 2)))
@example(0.7)
@example(0.9)
def test_a_published_score_and_the_alert_agree(threshold: float) -> None:
    """Whoever reads `score` and `alert_above` comes to the same conclusion."""
    results = scored([threshold, 0.0], ("fraud", "benign"), fraud=LabelPolicy(alert_above=threshold))
    found = outputs(results)
    assert found["predictions"][0]["score"] == threshold
    assert len(found.get("alerts", [])) == 1


def test_every_label_over_its_threshold_has_its_own_alert() -> None:
    low, high = LabelPolicy(alert_above=0.2, severity="low"), LabelPolicy(alert_above=0.4, severity="high")
    found = outputs(scored([0.3, 0.25, 0.45], ("fraud", "benign", "scam"), fraud=low, scam=high))
    assert [(one["label"], one["score"], one["severity"]) for one in found["alerts"]] == [
        ("fraud", 0.3, "low"), ("scam", 0.45, "high"),
    ]  # fmt: skip
    assert len({one["id"] for one in found["alerts"]}) == 2
    assert found["predictions"][0]["label"] == "scam"


def test_evidence_is_bounded() -> None:
    event = Event("news", Coordinates("news", 0, 0), "e", iso(NOW_S), NOW_S, "é" * 20_000, "k")
    found = outputs(scored([1.0, 0.0], ("fraud", "benign"), fraud=LabelPolicy(alert_above=0.5)), event)
    assert len(found["alerts"][0]["evidence"]["text"]) == MAX_EVIDENCE_CHARS


def test_tasks_decide_each_for_itself_under_ids_of_their_own() -> None:
    risk = scored([0.1, 0.9], ("benign", "fraud"), "risk", fraud=LabelPolicy(alert_above=0.5))
    tone = scored([0.4, 0.35, 0.25], SENTIMENT, "tone")
    found = outputs([*risk, *tone])
    assert [(one["task"], one["label"]) for one in found["predictions"]] == [("risk", "fraud"), ("tone", "negative")]
    assert [one["id"] for one in found["predictions"]] == ["news/2/41/risk", "news/2/41/tone"]
    assert [one["task"] for one in found["alerts"]] == ["risk"]
    assert [one["task"] for one in found["review"]] == ["tone"]


INTENTS = ("cards", "statement", "person", "unknown")
POLICIES = {
    "cards": LabelPolicy(queue="card-desk"),
    "statement": LabelPolicy(queue="accounts", template="It is in the app."),
    "person": LabelPolicy(queue="human"),
}


@pytest.mark.parametrize(
    ("label", "score", "action", "queue", "template"),
    [
        ("cards", 0.9, "queue", "card-desk", None),
        ("statement", 0.9, "template", "accounts", "It is in the app."),
        ("person", 0.9, "human", "human", None),
        ("unknown", 0.9, "human", "human", None),  # the task decides nothing on it
        ("cards", 0.55, "human", "human", None),  # not sure
        ("statement", 0.55, "human", "human", None),
    ],
)
def test_where_a_chat_turn_goes(label: str, score: float, action: str, queue: str, template: str | None) -> None:
    probabilities = [score if one == label else (1 - score) / 3 for one in INTENTS]
    found = outputs(scored(probabilities, INTENTS, "intent", 0.6, **POLICIES))
    (route,) = found["routes"]
    assert (route["action"], route["queue"], route["template"]) == (action, queue, template)
    assert (route["label"], route["conversation"], route["id"]) == (label, "ACME", "news/2/41/intent/route")


def test_a_task_without_queues_routes_nothing() -> None:
    assert "routes" not in outputs(scored([0.1, 0.9], ("benign", "fraud"), fraud=LabelPolicy(alert_above=0.5)))


@pytest.mark.parametrize(("score", "reviews"), [(0.59, 1), (0.6, 0), (0.61, 0)])
def test_a_person_reviews_what_is_below_the_limit(score: float, reviews: int) -> None:
    found = outputs(scored([score, 1 - score], ("fraud", "benign"), review_below=0.6))
    assert len(found.get("review", [])) == reviews
    for review in found.get("review", []):
        assert (review["text"], review["reason"]) == ("Shares fell", "low-confidence")
        assert review["id"] == "news/2/41/risk/review"


@pytest.mark.parametrize(
    ("scores", "familiar_from", "strange", "review", "action"),
    [
        ((0.9, 0.1, 5.0), None, False, None, "queue"),  # the release does not tell; nothing stands behind the scores
        ((0.9, 0.1, 1.5), 1.5, False, None, "queue"),
        ((0.9, 0.1, 1.499999), 1.5, True, "out-of-scope", "human"),
        ((0.5, 0.5, 1.0), 1.5, True, "out-of-scope", "human"),  # not sure either: one reason is enough
        ((0.5, 0.5, 2.0), 1.5, False, "low-confidence", "human"),
        ((0.1, 0.9, 2.0), 1.5, True, None, "human"),  # by its label: the model is sure, and nobody need label it
        ((0.1, 0.9, 1.0), 1.5, True, None, "human"),
        ((0.45, 0.55, 1.0), 1.5, True, "low-confidence", "human"),
    ],
)
def test_what_is_out_of_scope_goes_to_a_person(
    scores: tuple[float, float, float], familiar_from: float | None, strange: bool, review: str | None, action: str
) -> None:
    labels = ("cards", "out_of_scope")
    scope = familiar_from and Scope(
        familiar_from=familiar_from, asked_false_acceptance=0.2, n_outside=9, false_acceptance=0, false_rejection=0
    )
    ((plain, _),) = scored(scores[:2], labels, "intent", 0.6, cards=LabelPolicy(queue="card-desk"))
    served = replace(plain, scope=scope or None)
    row = [*scores] if scope else [*scores[:2]]
    found = outputs([(served, (row.index(max(row[:2])), row))])
    (prediction,), (route,) = found["predictions"], found["routes"]
    assert prediction["out_of_scope"] is route["out_of_scope"] is strange
    assert prediction["scores"] == dict(zip(labels, scores, strict=False))
    assert route["action"] == action
    assert [one["reason"] for one in found.get("review", [])] == ([review] if review else [])


def test_an_alert_is_raised_for_a_strange_text_too() -> None:
    ((plain, _),) = scored([0.1, 0.9], ("benign", "fraud"), fraud=LabelPolicy(alert_above=0.5))
    scope = Scope(familiar_from=1.0, asked_false_acceptance=0.2, n_outside=9, false_acceptance=0, false_rejection=0)
    found = outputs([(replace(plain, scope=scope), (1, [0.1, 0.9, 0.0]))])
    assert [(one["label"], one["out_of_scope"]) for one in found["alerts"]] == [("fraud", True)]


@pytest.mark.parametrize(("probabilities", "hit"), [((0.7, 0.2, 0.1), True), ((0.3, 0.6, 0.1), False)])
def test_an_observation_for_each_entity(probabilities: Sequence[float], hit: bool) -> None:
    decided = decide(EVENT, scored(probabilities, SENTIMENT, SURGE.task), SURGE, iso(NOW_S))
    observed = [out for out in decided if out.name == "observations"]
    assert [out.key for out in observed] == ["ACME", "Übel AG"]  # an entity's observations stay in one partition
    values = [value(out) for out in observed]
    assert [each["entity"] for each in values] == ["ACME", "Übel AG"]
    assert [each["id"] for each in values] == ["news/2/41/observation/0", "news/2/41/observation/1"]
    assert all(each["hit"] is hit and each["event_time_s"] == EVENT.event_time_s for each in values)
    assert values[0]["score"] == pytest.approx(probabilities[0])
    for out in observed:
        check(out)


def test_no_observation_of_another_task_or_without_entities() -> None:
    assert "observations" not in outputs(scored([0.7, 0.2, 0.1], SENTIMENT, "tone"))
    bare = Event("news", Coordinates("news", 0, 0), "e", iso(NOW_S), NOW_S, "t", "k")
    assert "observations" not in outputs(scored([0.7, 0.2, 0.1], SENTIMENT, SURGE.task), bare)


def test_a_model_without_the_observed_label_never_hits() -> None:
    found = outputs(scored([0.7, 0.3], ("good", "bad"), SURGE.task))
    assert [(one["hit"], one["score"]) for one in found["observations"]] == [(False, 0.0), (False, 0.0)]


events = st.builds(
    Event,
    source=st.just("chat"),
    at=st.builds(Coordinates, st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True), st.integers(0, 9),
                 st.integers(0, 2**60)),
    event_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    event_time=st.just("2026-03-01T12:00:00.000Z"),
    event_time_s=st.floats(-1e12, 1e12),
    text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=50),
    key=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    entities=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), max_size=4, unique=True)
    .map(tuple),
)  # fmt: skip
policies = st.builds(
    LabelPolicy,
    alert_above=st.none() | st.floats(0, 1),
    severity=st.sampled_from(["low", "medium", "high"]),
    queue=st.none() | st.sampled_from(["human", "desk"]),
    template=st.none() | st.just("an answer"),
)


@given(events, st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.lists(policies, min_size=3, max_size=3),
       st.floats(0, 1))  # fmt: skip
@settings(deadline=None)
def test_whatever_is_decided_has_its_shape_and_the_same_ids_again(
    event: Event, weights: list[float], given_policies: list[LabelPolicy], review_below: float
) -> None:
    results = scored([weight / sum(weights) for weight in weights], SENTIMENT, SURGE.task, review_below,
                     **dict(zip(SENTIMENT, given_policies, strict=True)))  # fmt: skip
    first, again = decide(event, results, SURGE, iso(NOW_S)), decide(event, results, SURGE, iso(NOW_S + 3600))
    for out in first:
        check(out)
    assert [(out.name, out.key, value(out)["id"]) for out in first] == [
        (out.name, out.key, value(out)["id"]) for out in again
    ]
    assert len({(out.name, value(out)["id"]) for out in first}) == len(first)
    assert [out.name for out in first].count("predictions") == 1
    assert [out.name for out in first].count("observations") == len(event.entities)


@given(st.floats(allow_nan=False))
@example(float("inf"))
@example(-float("inf"))
@example(253_402_300_799.9999)
@example(-62_135_596_800.1)
@example(0.9996)
def test_any_time_has_a_name(seconds: float) -> None:
    named = iso(seconds)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", named)
    if -60_000_000_000 < seconds < 250_000_000_000:
        assert datetime.fromisoformat(named).timestamp() == pytest.approx(seconds, abs=0.0011)
