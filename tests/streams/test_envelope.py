"""The envelope: all of the record comes back out of its dead letter, whatever it was."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from streams.decisions import APP_VERSION
from streams.envelope import bounded, dead_letter
from streams.events import Coordinates, DeadLetter, Rejected, iso
from streams.intake import Unreadable
from streams.lineage import Redriven, headers_of, lineage_of
from streams.publishing import MAX_MESSAGE_BYTES
from tests.streams.records import FakeRecord

NOW_S = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
AT = Coordinates("chat", 3, 7)
REJECTED = Rejected(AT, "intake", "NotJson", "chat/3/7: not JSON")

any_bytes = st.none() | st.binary(max_size=200)
names = st.text(max_size=9).map(lambda name: name.encode("utf-8", "replace").decode())


def letter_of(record: FakeRecord, rejected: Rejected = REJECTED) -> dict[str, Any]:
    out = dead_letter(record, "chat", rejected, NOW_S)
    data = orjson.dumps(out.value)
    TypeAdapter(DeadLetter).validate_json(data, strict=True)
    letter: dict[str, Any] = orjson.loads(data)
    assert set(letter) == DeadLetter.__required_keys__
    assert (out.name, out.key) == ("dead_letters", letter["origin"])
    assert len(data) + len(out.key) < MAX_MESSAGE_BYTES - 1024
    return letter


def bytes_of(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)


@given(any_bytes, any_bytes, st.lists(st.tuples(names, any_bytes), max_size=3),
       st.none() | st.integers(-(2**63), 2**63 - 1))  # fmt: skip
@settings(deadline=None)
def test_a_dead_letter_gives_the_bytes_back(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], timestamp: int | None
) -> None:
    letter = letter_of(FakeRecord(value, 7, "chat", 3, timestamp, key, headers))
    assert bytes_of(letter["key_base64"]) == key
    assert bytes_of(letter["value_base64"]) == value
    assert [(name, bytes_of(data)) for name, data in letter["headers_base64"]] == headers
    assert letter["id"] == "chat/3/7/dead-letter"
    assert not letter["truncated"]


def test_a_letter_in_full() -> None:
    rejected = Rejected(AT, "scoring", "ModelFailed", "chat/3/7: no", attempts=2, release="intent-1")
    trace = [("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
    letter = letter_of(FakeRecord(b"v", 7, "chat", 3, 1_700_000_000_500, b"k", trace), rejected)
    assert letter == {
        "id": "chat/3/7/dead-letter",
        "origin": "chat/3/7",
        "source": {"name": "chat", "topic": "chat", "partition": 3, "offset": 7},
        "timestamp": "2023-11-14T22:13:20.500Z",
        "stage": "scoring",
        "error": "ModelFailed",
        "message": "chat/3/7: no",
        "attempts": 2,
        "redrives": 0,
        "release": "intent-1",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "key_base64": "aw==",
        "value_base64": "dg==",
        "headers_base64": [["traceparent", base64.b64encode(trace[0][1]).decode()]],
        "truncated": False,
        "first_seen_at": iso(NOW_S),
        "failed_at": iso(NOW_S),
        "app_version": APP_VERSION,
    }


def test_a_redriven_event_keeps_its_origin_its_times_and_its_count() -> None:
    redriven = Redriven(Coordinates("chat", 3, 2), 2, "2026-02-01T00:00:00.000Z", 1_700_000_000_500)
    letter = letter_of(FakeRecord(b"v", 7, "chat", 3, 1_772_366_400_000, b"k", headers_of(redriven, ())))
    assert letter["id"] == lineage_of(redriven.origin, b"k", b"v") + "/dead-letter/2"
    assert (letter["origin"], letter["source"]["offset"], letter["redrives"]) == ("chat/3/2", 7, 2)
    assert (letter["first_seen_at"], letter["failed_at"]) == ("2026-02-01T00:00:00.000Z", iso(NOW_S))
    assert letter["timestamp"] == "2023-11-14T22:13:20.500Z"
    first = letter_of(FakeRecord(b"v", 2, "chat", 3), Rejected(Coordinates("chat", 3, 2), "intake", "NotJson", "no"))
    assert letter["trace_id"] == first["trace_id"]


@pytest.mark.parametrize("message", ["x" * 5000, "é" * 5000, "\U0001f4a5" * 5000, "\ud800" * 5000, "a" + "é" * 600])
def test_no_message_is_longer_than_a_kilobyte_or_breaks_json(message: str) -> None:
    letter = letter_of(FakeRecord(b"v", 7, "chat", 3), Rejected(AT, "intake", "NotJson", message))
    assert 1020 <= len(letter["message"].encode()) <= 1024
    assert "\ufffd" not in letter["message"]


def test_a_short_message_stays_as_it_is() -> None:
    assert bounded("naïve 💥") == "naïve 💥"


MIB = 1024 * 1024


@pytest.mark.parametrize(
    "record",
    [
        FakeRecord(b"\xff" * (10 * MIB), 7, "chat", 3),
        FakeRecord(b"v", 7, "chat", 3, key=b"k" * (9 * MIB)),
        FakeRecord(b"v", 7, "chat", 3, headers=[("\x01" * (5 * MIB), None)]),
        FakeRecord(b"v", 7, "chat", 3, headers=[("", None)] * 1_000_000),
        FakeRecord(b"v", 7, "chat", 3, headers=[("x", b"y" * (8 * MIB))]),
    ],
    ids=["value", "key", "header name", "headers", "header value"],
)
def test_what_no_letter_can_hold_is_cut_and_says_so(record: FakeRecord) -> None:
    """The broker would refuse the letter, and the worker would end at this record again and again."""
    letter = letter_of(record)
    assert letter["truncated"]
    value = bytes_of(letter["value_base64"])
    assert value and record.value and record.value.startswith(value)


def test_what_could_not_be_read_is_not_there_and_says_so() -> None:
    letter = letter_of(FakeRecord(Unreadable("BatchTooLarge", "why"), 7, "chat", 3))
    assert letter["truncated"]
    assert (letter["key_base64"], letter["value_base64"], letter["headers_base64"]) == (None, None, [])
    assert (letter["id"], letter["origin"]) == ("chat/3/7/dead-letter", "chat/3/7")


def test_the_largest_event_of_any_configuration_is_whole() -> None:
    letter = letter_of(FakeRecord(b"\xff" * 5_000_000, 7, "chat", 3, headers=[("x", b"y" * 60_000)]))
    assert not letter["truncated"]
    assert len(bytes_of(letter["value_base64"]) or b"") == 5_000_000
