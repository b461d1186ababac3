"""Intake: exactly one verdict for any bytes, and the right one for each way to be wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.events import Coordinates, Event, Rejected
from streams.intake import Intake, Unreadable, depth
from streams.lineage import Redriven, headers_of, lineage_of
from streams.settings import IntakeSettings, Source, load_settings
from tests.streams.records import FakeRecord

NOW_S = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
LIMITS = IntakeSettings(
    max_expanded_batch_mib=8, max_event_bytes=5000, max_depth=8, max_text_chars=1000,
    earliest_time=datetime(1990, 1, 1, tzinfo=UTC), max_future_s=300,
)  # fmt: skip
SOURCE = Source(
    topic="news", kind="news", text=("title", "body.text"), id="id", time="ts", key="symbols", entities="symbols",
    tasks=("sentiment",),
)  # fmt: skip


def verdict(value: bytes | None, **record: Any) -> Event | Rejected:
    (one,) = Intake("news", SOURCE, LIMITS).decode([FakeRecord(value, **record)], NOW_S)
    return one


def event(body: dict[str, object], **record: Any) -> Event:
    one = verdict(orjson.dumps(body), **record)
    assert isinstance(one, Event), one
    return one


def test_a_whole_event() -> None:
    got = event(
        {
            "id": 7,
            "ts": "2026-02-28T12:00:00Z",
            "title": " Up ",
            "body": {"text": "more"},
            "symbols": ["ABC", "XY", "ABC"],
        }
    )
    assert got == Event(
        source="news", at=Coordinates("news", 0, 0), event_id="7",
        event_time="2026-02-28T12:00:00.000Z", event_time_s=1_772_280_000.0, text="Up\nmore",
        key="ABC", entities=("ABC", "XY"),
    )  # fmt: skip


def test_what_is_left_out_comes_from_the_record() -> None:
    got = event({"title": "t"}, offset=9, key=b"k", timestamp=1_700_000_000_500)
    assert (got.event_id, got.key, got.event_time_s) == ("news/0/9", "k", 1_700_000_000.5)
    got = event({"title": "t"}, offset=9, timestamp=-1)
    assert (got.key, got.event_time_s) == ("news/0/9", NOW_S)


@pytest.mark.parametrize(
    ("given", "worded"),
    [
        ("2026-02-28T12:00:00Z", "2026-02-28T12:00:00.000Z"),
        ("2026-02-28T12:00:00.123Z", "2026-02-28T12:00:00.123Z"),
        ("2026-02-28T12:00:00.123456Z", "2026-02-28T12:00:00.123Z"),
        ("2026-02-28T12:00:00,123Z", "2026-02-28T12:00:00.123Z"),
        ("2026-02-28 12:00:00Z", "2026-02-28T12:00:00.000Z"),
        ("2026-02-28T13:00:00+01:00", "2026-02-28T12:00:00.000Z"),
        ("2026-W09-6T12:00:00Z", "2026-02-28T12:00:00.000Z"),
        ("20260228T120000.123456Z", "2026-02-28T12:00:00.123Z"),
        ("2026-02-28", "2026-02-28T00:00:00.000Z"),
        (1_772_280_000.5, "2026-02-28T12:00:00.500Z"),
    ],
)
def test_every_way_to_write_a_time_comes_out_the_same_way(given: str | float, worded: str) -> None:
    assert event({"ts": given, "title": "t"}).event_time == worded


def test_times_without_a_zone_are_utc() -> None:
    assert event({"title": "t", "ts": "2026-02-28T12:00:00"}).event_time_s == 1_772_280_000.0
    assert event({"title": "t", "ts": 1_772_280_000.25}).event_time_s == 1_772_280_000.25


def test_a_redriven_event_keeps_its_id_and_time_and_goes_by_its_lineage() -> None:
    origin = Redriven(Coordinates("news", 0, 9), 1, "2026-02-01T00:00:00.000Z", 1_700_000_000_500)
    record = {"offset": 77, "key": b"k", "timestamp": 1_772_000_000_000}
    got = event({"title": "t"}, headers=headers_of(origin, [("x", None)]), **record)
    assert (got.at, got.event_id, got.event_time_s) == (Coordinates("news", 0, 77), "news/0/9", 1_700_000_000.5)
    assert got.identity == lineage_of(origin.origin, b"k", b'{"title":"t"}')
    forged = origin._replace(origin=Coordinates("news", 1, 9))
    got = event({"title": "t"}, headers=headers_of(forged, ()), **record)
    assert (got.identity, got.event_id, got.event_time_s) == ("news/0/77", "news/0/77", 1_772_000_000.0)


BAD: list[tuple[bytes | None, str, str]] = [
    (None, "NullValue", "tombstone"),
    (b"", "NotJson", "not JSON"),
    (b"\xff\xfe{}", "NotUtf8", "at byte 0"),
    (b'{"title": "\xc3"}', "NotUtf8", "UTF-8"),
    (b"{'title': 'x'}", "NotJson", "not JSON"),
    (b'{"title": "x"', "NotJson", "not JSON"),
    (b'{"title": "\\ud800"}', "NotJson", "surrogate"),
    (b'["x"]', "WrongShape", "not a list"),
    (b'"x"', "WrongShape", "not a string"),
    (b'{"title": 5}', "WrongShape", "'title' must be a string, not a number"),
    (b'{"title": "x", "body": {"text": ["y"]}}', "WrongShape", "'body.text'"),
    (b'{"title": "x", "id": {"a": 1}}', "WrongShape", "'id'"),
    (b'{"title": "x", "id": ""}', "WrongShape", "'id'"),
    (b'{"title": "x", "symbols": [1]}', "WrongShape", "'symbols'"),
    (b'{"title": "  "}', "EmptyText", "title, body.text"),
    (b"{}", "EmptyText", "no text"),
    (b'{"title": "' + b"x" * 1001 + b'"}', "TooLarge", "intake.max_text_chars"),
    (b'{"title": "' + b"x" * 6000 + b'"}', "TooLarge", "intake.max_event_bytes"),
    (b'{"title": "x", "a": ' + b"[" * 9 + b"]" * 9 + b"}", "TooDeep", "intake.max_depth"),
    (b'{"title": "x", "a": ' + b"[" * 2000 + b"]" * 2000 + b"}", "TooDeep", "deep"),
    (b'{"title": "x", "amount": NaN}', "NotFinite", "NaN"),
    (b'{"title": "x", "amount": -Infinity}', "NotFinite", "Infinity"),
    (b'{"title": "x", "amount": 1e999}', "NotFinite", "range"),
    (b'{"title": "x", "ts": "yesterday"}', "BadTime", "'ts'"),
    (b'{"title": "x", "ts": true}', "BadTime", "'ts'"),
    (b'{"title": "x", "ts": "1970-01-01"}', "BadTime", "earliest_time"),
    (b'{"title": "x", "ts": "2999-01-01"}', "BadTime", "max_future_s"),
    (b'{"title": "x", "ts": 1772280000000}', "BadTime", "milliseconds"),
    (b'{"title": "x", "ts": -1e300}', "BadTime", "'ts'"),
]


@pytest.mark.parametrize(("value", "error", "words"), BAD)
def test_each_way_to_be_wrong_has_its_class_and_names_the_place(value: bytes | None, error: str, words: str) -> None:
    got = verdict(value, offset=41)
    assert isinstance(got, Rejected), got
    assert (got.error, got.stage, got.at) == (error, "intake", Coordinates("news", 0, 41))
    assert words in got.message
    assert got.message.startswith("news/0/41: ")


def test_what_could_not_be_read_is_refused_with_the_reason() -> None:
    got = verdict(Unreadable("BatchTooLarge", "it expands"), offset=3)
    assert got == Rejected(Coordinates("news", 0, 3), "intake", "BatchTooLarge", "news/0/3: it expands")
    empty = verdict(b"")
    assert isinstance(empty, Rejected) and empty.error == "NotJson"


def test_the_word_nan_in_a_text_is_just_a_word() -> None:
    assert event({"title": "NaN or Infinity?"}).text == "NaN or Infinity?"
    got = verdict(b'{"title": "NaN"')
    assert isinstance(got, Rejected)
    assert got.error == "NotJson"


def test_a_bad_record_does_not_touch_its_neighbours() -> None:
    records = [FakeRecord(b'{"title": "a"}', 0), FakeRecord(b"\xff", 1), FakeRecord(b'{"title": "b"}', 2)]
    verdicts = Intake("news", SOURCE, LIMITS).decode(records, NOW_S)
    assert [type(one) for one in verdicts] == [Event, Rejected, Event]
    assert [one.at.offset for one in verdicts] == [0, 1, 2]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
fields = st.fixed_dictionaries(
    {}, optional={name: json_values for name in ("title", "body", "id", "ts", "symbols", "other")}
)
hostile = (
    st.none()
    | st.binary()
    | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | fields.map(lambda body: json.dumps(body).encode("utf-8", "surrogatepass"))
    | st.integers(1, 3000).map(lambda n: b'{"title":"x","a":' + b"[" * n + b"]" * n + b"}")
)


@given(st.lists(hostile, max_size=5), st.none() | st.binary(), st.none() | st.integers(-(2**63), 2**63 - 1))
@example([b'{"title":"x","ts":1e308}'], b"\xff", 2**63 - 1)
def test_any_bytes_get_exactly_one_verdict(
    values: list[bytes | None], key: bytes | None, timestamp: int | None
) -> None:
    records = [FakeRecord(value, offset, key=key, timestamp=timestamp) for offset, value in enumerate(values)]
    verdicts = Intake("news", SOURCE, LIMITS).decode(records, NOW_S)
    assert [one.at.offset for one in verdicts] == list(range(len(values)))
    for one in verdicts:
        if isinstance(one, Event):
            assert 0 < len(one.text.encode("utf-8")) and len(one.text) <= LIMITS.max_text_chars
            assert one.event_id and one.key
        else:
            assert one.error != "Unexpected", one.message


near_times = st.sampled_from([
    "2026-02-28T12:00:00Z", "2026-02-28T12:00:00.123Z", "2026-02-28T12:00:00,123Z", "2026-02-28T12:00+01:00Z", "Z" * 20,
    "2026-02-28T120000.1234Z", "2026-02-30T12:00:00Z", "2999-01-01T00:00:00Z",
    "1970-01-01T00:00:00Z", "2026-W09-6T12:00:00Z",
    "٢٠٢٦-02-28T12:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "",
    1_772_280_000, 1_772_280_000.25, True, None,
])  # fmt: skip
near_words = st.sampled_from(
    ["x", " x ", "", "  ", "x" * 512, "x" * 513, "x" * 1001, "é", 7, True, None, [], ["k"], [1], {"a": [[1]]}]
)
near_usual = st.fixed_dictionaries(
    {}, optional={"title": near_words, "id": near_words, "ts": near_times, "symbols": near_words, "deep": json_values}
).map(lambda body: json.dumps(body).encode("utf-8", "surrogatepass"))


@given(
    st.lists(near_usual | hostile, max_size=8), st.none() | st.binary(), st.sampled_from([None, -1, 1_772_280_000_500])
)
def test_what_looks_usual_is_judged_as_everything_else(
    values: list[bytes | None], key: bytes | None, timestamp: int | None
) -> None:
    """The shapes that are recognised in passing give what the methods that judge every shape give."""
    records = [FakeRecord(value, offset, key=key, timestamp=timestamp) for offset, value in enumerate(values)]
    quick, careful = (Intake("news", SOURCE.model_copy(update={"text": ("title",)}), LIMITS) for _ in range(2))
    careful._id_name = careful._time_name = careful._key_name = careful._text_name = None  # nothing is usual to it
    assert quick.decode(records, NOW_S) == careful.decode(records, NOW_S)


@given(json_values)
def test_depth_is_counted_as_a_recursion_would(value: object) -> None:
    def recursive(node: object) -> int:
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else None
        return 0 if children is None else 1 + max((recursive(child) for child in children), default=0)

    assert depth(value, 50) == recursive(value)
    assert depth(value, 2) == min(3, recursive(value))


def test_the_shipped_sources_read_the_shipped_samples() -> None:
    from streams.demo import SAMPLES

    settings = load_settings(env={})
    now_s = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    for name, source in settings.sources.items():
        lines = (SAMPLES / f"{name}.jsonl").read_bytes().splitlines()
        verdicts = Intake(name, source, settings.intake).decode([FakeRecord(line) for line in lines], now_s)
        assert len(verdicts) == 130
        assert all(isinstance(one, Event) for one in verdicts)


def test_an_absurd_time_stamp_of_the_record_is_bad_too() -> None:
    got = verdict(b'{"title": "x"}', timestamp=2**62)
    assert isinstance(got, Rejected)
    assert (got.error, "the record's time stamp" in got.message) == ("BadTime", True)
