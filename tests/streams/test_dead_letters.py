"""Dead letters as read: what is one, which are meant, which may go back, and how they are shown."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.dead_letters import (
    MAX_EXAMPLES,
    Filters,
    Letter,
    NotALetter,
    letter_of,
    newest,
    plan_of,
    printable,
    printable_bytes,
    refusal,
)
from streams.events import Coordinates
from streams.lineage import redriven_of
from tests.streams.letters import FAILED_S, STAMP_MS, body

LIES = Coordinates("dead-letters", 1, 5)
NOW_S = FAILED_S


def read(said: Mapping[str, Any], lies: Coordinates = LIES) -> Letter:
    return letter_of(lies, b"key", orjson.dumps(said))


def letters(count: int, copies: int = 1, **fields: Any) -> list[Letter]:
    bodies = [body(offset=offset, failed_s=NOW_S + offset, **fields) for offset in range(count)] * copies
    return [read(said, LIES._replace(partition=place % 3, offset=place)) for place, said in enumerate(bodies)]


# ---- reading


def test_a_letter_gives_back_what_was_put_in() -> None:
    one = read(body(value=b"\xff{"))
    assert (one.id, one.origin, one.lies) == ("chat/3/7/dead-letter", Coordinates("chat", 3, 7), LIES)
    assert (one.key, one.value, one.headers) == (b"k", b"\xff{", [("x", b"\x00"), ("x", None)])
    assert (one.failed_at_s, one.timestamp_ms) == (NOW_S, STAMP_MS)


@pytest.mark.parametrize("redrives", [0, 1, 2])
def test_an_event_sent_back_is_the_same_event_once_more(redrives: int) -> None:
    one = read(body(offset=7, redrives=redrives))
    found = redriven_of(one.redrive_headers(), Coordinates("chat", 3, 999))
    assert found is not None
    assert (found.origin, found.times) == (Coordinates("chat", 3, 1 if redrives else 7), redrives + 1)
    assert found.timestamp_ms == (STAMP_MS - 1 if redrives else STAMP_MS)
    assert found.first_seen_at == ("2026-02-01T00:00:00.000Z" if redrives else "2026-03-01T12:00:00.000Z")
    assert [one for one in one.redrive_headers() if not one[0].startswith("streamgauge-")] == [
        ("x", b"\x00"),
        ("x", None),
    ]


def test_letters_of_the_first_version_can_be_read() -> None:
    said = body()
    for name in ("origin", "attempts", "redrives", "release", "trace_id", "truncated", "first_seen_at"):
        del said[name]
    one = read(said)
    assert (one.origin, one.said["redrives"], one.first_seen_at) == (
        Coordinates("chat", 3, 7), 0, "2026-03-01T12:00:00.000Z",
    )  # fmt: skip
    assert one.said["trace_id"] == body()["trace_id"]


FORGED: list[dict[str, Any]] = [
    {"origin": "payments/3/7"}, {"origin": "chat/4/7"}, {"origin": "chat/3/-7"}, {"origin": "chat/3/"}, {"origin": ""},
    {"origin": "chat/3/" + "9" * 5000}, {"origin": None}, {"source": {}}, {"source": 5}, {"redrives": -1},
    {"redrives": "many"}, {"value_base64": "%%%"}, {"value_base64": 7}, {"headers_base64": [["a"]]}, {"id": "x" * 2000},
    {"failed_at": "yesterday"}, {"first_seen_at": "\x1b[2J"},
    {"timestamp": "x"}, {"stage": "elsewhere"}, {"truncated": "perhaps"}, {"id": None},
]  # fmt: skip


@pytest.mark.parametrize("field", FORGED, ids=lambda field: repr(field)[:50])
def test_a_letter_that_no_worker_wrote_is_none(field: dict[str, Any]) -> None:
    with pytest.raises(NotALetter, match=r"^dead-letters/1/5: ") as caught:
        read(body() | field)
    assert str(caught.value).isprintable()


@given(st.binary() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(body())) | st.text(), inner),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_any_bytes_are_a_letter_or_none(value: bytes) -> None:
    try:
        letter_of(LIES, None, value)
    except NotALetter as error:
        assert str(error).isprintable() and len(str(error)) < 1000


# ---- which are meant


def test_filters_narrow_each_by_itself_and_together() -> None:
    ones = [read(body(offset=number, topic=topic, partition=number, stage=stage, error=error, failed_s=NOW_S + number))
            for number, (topic, stage, error) in enumerate([
                ("chat", "intake", "NotJson"), ("chat", "scoring", "ModelFailed"), ("news", "intake", "NotUtf8"),
            ])]  # fmt: skip

    def meant(**fields: Any) -> list[int]:
        return [number for number, one in enumerate(ones) if Filters(**fields).match(one)]

    assert meant() == [0, 1, 2]
    assert meant(topic="chat") == [0, 1]
    assert meant(partition=2) == [2]
    assert meant(partition=0) == [0]
    assert meant(stage="intake") == [0, 2]
    assert meant(error="modelFAILED") == [1]
    assert meant(error="NotUtf8: not") == [2]
    assert meant(error=".*") == [], "it is no pattern"
    assert meant(since_s=NOW_S + 1) == [1, 2]
    assert meant(until_s=NOW_S + 1) == [0]
    assert meant(ids=frozenset({"chat/0/0/dead-letter"})) == [0]
    assert meant(topic="chat", stage="intake", since_s=NOW_S + 1) == []


@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 3), st.sets(st.integers(0, 39)), st.booleans())
@settings(deadline=None, max_examples=50)
def test_the_newest_are_listed_each_once(
    count: int, limit: int, copies: int, redriven: set[int], with_redriven: bool
) -> None:
    marks = {hash(f"chat/3/{offset}/dead-letter") for offset in redriven}
    found = newest(letters(count, copies), Filters(), marks, limit, with_redriven)
    wanted = [offset for offset in range(count) if with_redriven or offset not in redriven]
    assert [one.origin.offset for one in found.letters] == wanted[-limit:]
    assert found.matching == copies * len(wanted)
    assert found.redriven == copies * len(redriven & set(range(count)))


def test_a_listing_holds_no_bytes() -> None:
    (one,) = newest([read(body(value=b"x" * 1000))], Filters(), (), 5, False).letters
    assert (one.value, one.said["value_base64"]) == (None, None)


# ---- which may go back


@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 3), st.sets(st.integers(0, 39)))
@settings(deadline=None, max_examples=50)
def test_a_plan_takes_each_letter_once_and_none_that_went_before(
    count: int, limit: int, copies: int, redriven: set[int]
) -> None:
    marks = {hash(f"chat/3/{offset}/dead-letter") for offset in redriven}
    ones = letters(count, copies)
    plan = plan_of(ones, Filters(), marks, limit, 3, {"chat"})
    chosen = [one for one in ones if one.lies.offset in plan.chosen.get(one.lies.partition, ())]
    wanted = [offset for offset in range(count) if offset not in redriven]
    assert [one.origin.offset for one in chosen] == wanted[:limit]
    assert plan.letters == plan.by_topic.total() == len(chosen)
    assert plan.beyond == copies * max(0, len(wanted) - limit)
    for partition, (first, end) in plan.ranges.items():
        assert {first, end - 1} <= plan.chosen[partition] <= set(range(first, end))


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({}, None, ""),
        ({"redrives": 2}, None, ""),
        ({"redrives": 3}, "too-often", "redriven 3 times and failed again; the most is 3 (--max-redrives)"),
        ({"redrives": 90}, "too-often", "redriven 90 times"),
        ({"topic": "payments"}, "not-a-source", "'payments' is not read by this configuration (chat, news)"),
    ],
)
def test_what_may_not_go_back_says_why(fields: dict[str, Any], kind: str | None, words: str) -> None:
    why = refusal(read(body(**fields)), 3, ["news", "chat"])
    assert (why and why.kind) == kind
    assert why is None or words in why.words


def test_a_letter_without_all_its_bytes_does_not_go_back() -> None:
    why = refusal(read(body() | {"truncated": True}), 3, ["chat"])
    assert why is not None
    assert (why.kind, "the whole event is at chat/3/7" in why.words) == ("truncated", True)


def test_refused_letters_are_all_counted_and_some_named() -> None:
    plan = plan_of(letters(50, redrives=3), Filters(), (), 10, 3, {"chat"})
    assert (plan.letters, plan.refused, len(plan.examples)) == (0, {"too-often": 50}, MAX_EXAMPLES)


# ---- shown


@given(st.text(), st.integers(0, 50))
@settings(deadline=None)
def test_nothing_that_controls_a_terminal_is_shown(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert not {unicodedata.category(one) for one in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert len(shown) <= 10 * limit + 40


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (None, "none"), (b"", ""), (b'{"a": 1}', '{"a": 1}'), ("Grüße 💥".encode(), "Grüße 💥"),
        (b"\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"), (b"\xff\xfe", r"\xff\xfe"),
        (b"a\nb\r\t", r"a\nb\r\t"),
        ("\u202egnp.exe".encode(), r"\u202egnp.exe"), ("\x9b31m".encode(), r"\x9b31m"),
        (b"x" * 5000, "x" * 4000 + "… (1,000 more bytes)"),
    ],
)  # fmt: skip
def test_bytes_are_shown_as_text_where_they_are_text(data: bytes | None, shown: str) -> None:
    assert printable_bytes(data) == shown


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_shown_unharmed(data: bytes) -> None:
    assert printable_bytes(data, 100).isprintable()
