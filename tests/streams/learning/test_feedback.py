from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.events import Coordinates, Rejected, json_schemas
from streams.learning.feedback import Heard, Listener, OfEvent, OfPrediction, OwnText
from streams.settings import load_settings
from tests.streams.records import FakeRecord

SETTINGS = load_settings(env={})
LISTENER = Listener(SETTINGS)
NOW_S = 1_795_000_000.0
SAID: dict[str, Any] = {
    "task": "risk",
    "annotator": "ann",
    "labelled_at": "2026-11-02T10:00:00Z",
    "label": "smishing",
    "event_id": "e1",
}


def understood(record: object) -> Heard | Rejected:
    value = record if isinstance(record, bytes) else json.dumps(record).encode()
    return LISTENER.understand(FakeRecord(value, 7, "feedback", 2), NOW_S)


def heard(**fields: Any) -> Heard:
    found = understood(SAID | fields)
    assert isinstance(found, Heard), found
    return found


def refusal(without: str = "", **fields: Any) -> str:
    found = understood({name: value for name, value in (SAID | fields).items() if name != without})
    assert isinstance(found, Rejected), found
    assert found.stage == "feedback"
    return f"{found.error}: {found.message.removeprefix('feedback/2/7: ')}"


def test_a_label_for_an_event() -> None:
    found = heard(note="clear")
    assert (found.task, found.label, found.annotator, found.note) == ("risk", "smishing", "ann", "clear")
    assert (found.subject, found.at, found.labelled_at_s) == (OfEvent("e1"), (2, 7), 1_793_613_600.0)


def test_a_withdrawal_needs_no_label_and_has_none() -> None:
    assert heard(action="withdraw").label is None
    assert refusal(without="label").startswith("BadFeedback: field 'label' is missing")


@pytest.mark.parametrize("of", ["", "/review", "/route", "/alert/smishing"])
def test_the_id_of_a_prediction_or_of_what_followed_from_it_says_where_the_event_lies(of: str) -> None:
    found = heard(prediction_id=f"transactions/3/41/risk{of}").subject
    at = Coordinates("transactions", 3, 41)
    assert found == OfPrediction("transactions/3/41/risk", "transactions/3/41", at)


def test_where_a_redriven_event_lies_is_not_in_its_id() -> None:
    identity = "transactions/3/41/redriven-0123456789abcdef"
    assert heard(prediction_id=f"{identity}/risk").subject == OfPrediction(f"{identity}/risk", identity, None)


def test_an_id_goes_before_the_text_beside_it() -> None:
    assert heard(text="Your parcel").subject == OfEvent("e1")
    assert heard(text="x", prediction_id="transactions/0/1/risk").subject != OfEvent("e1")
    alone = understood({name: value for name, value in SAID.items() if name != "event_id"} | {"text": " Your parcel\n"})
    assert isinstance(alone, Heard) and alone.subject == OwnText("Your parcel")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"task": "spam"}, "UnknownTask: no source has a task 'spam'; there are: intent, risk, sentiment"),
        ({"annotator": ""}, "BadFeedback: field 'annotator': String should have at least 1 character"),
        ({"annotator": 7}, "BadFeedback: field 'annotator': Input should be a valid string"),
        ({"label": "x" * 201}, "BadFeedback: field 'label': String should have at most 200 characters"),
        ({"action": "delete"}, "BadFeedback: field 'action': Input should be 'label' or 'withdraw'"),
        ({"note": "x" * 4001}, "BadFeedback: field 'note': String should have at most 4000 characters"),
        ({"labelled_at": "yesterday"}, "BadTime: field 'labelled_at' must be ISO 8601"),
        ({"labelled_at": NOW_S + 301}, "BadTime: field 'labelled_at' is outside"),
        ({"labelled_at": True}, "BadFeedback: field 'labelled_at'"),
        ({"prediction_id": "risk"}, "BadFeedback: field 'prediction_id' must be the 'id'"),
        ({"prediction_id": "transactions/0/1/risk/../x"}, "BadFeedback: field 'prediction_id' must be the 'id'"),
        ({"prediction_id": "transactions/0/1/intent"}, "BadFeedback: field 'prediction_id' is about task 'intent'"),
        ({"prediction_id": "secrets/0/1/risk"}, "NotASource: no source reads topic 'secrets' for task 'risk'"),
        ({"prediction_id": "chat/0/1/risk"}, "NotASource: no source reads topic 'chat' for task 'risk'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(fields: dict[str, Any], why: str) -> None:
    assert refusal(**fields).startswith(why)


def test_without_any_text_or_with_too_much_of_it_there_is_nothing_to_label() -> None:
    assert refusal(without="event_id") == (
        "BadFeedback: one of the fields 'prediction_id', 'event_id' and 'text' is needed"
    )
    for text in ("  ", "x" * (SETTINGS.intake.max_text_chars + 1)):
        assert refusal(without="event_id", text=text).startswith("BadFeedback: field 'text' has")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"\xff", "NotUtf8"),
        (b"[]", "WrongShape"),
        (b"{", "NotJson"),
        (b"{" * 20 + b"}", "NotJson"),
        (b" " * 300_000, "TooLarge"),
    ],
)
def test_what_is_no_json_object_is_refused(value: bytes, error: str) -> None:
    found = understood(value)
    assert isinstance(found, Rejected) and found.error == error


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda of: st.lists(of, max_size=2))


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from([*SAID, "text", "prediction_id", "note", "action"]), JSON))
def test_every_record_has_one_verdict(fields: dict[str, Any]) -> None:
    assert isinstance(understood(SAID | fields), Heard | Rejected)


def test_the_schema_says_what_is_needed() -> None:
    assert set(json_schemas()["feedback"]["required"]) == {"task", "annotator", "labelled_at"}
