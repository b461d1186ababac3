"""Replay: every line as it stands, at its time."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.embedded import EmbeddedBroker
from streams.replay import Pace, ReplayError, event_time_s, key_of, lines_of, replay
from tests.streams.fakes import Clock
from tests.streams.wire import read_all


def at(seconds: float) -> bytes:
    return json.dumps({"ts": seconds, "text": "t"}).encode()


def due(times: list[float], speed: float | None, busy_s: float = 0) -> list[float]:
    """When each line goes, in seconds after the first; `busy_s` passes between two lines."""
    clock = Clock()
    pace, start_s, found = Pace(speed, clock, clock.sleep), clock(), list[float]()
    for time_s in times:
        pace.wait(at(time_s), "f:1")
        found.append(clock() - start_s)
        clock.now_s += busy_s
    return found


def test_lines_go_at_the_distances_of_their_times() -> None:
    assert due([100, 100.5, 103, 103], 1) == pytest.approx([0, 0.5, 3, 3])


def test_speed_divides_the_distances() -> None:
    assert due([100, 110, 130], 10) == pytest.approx([0, 1, 3])
    assert due([100, 101], 0.5) == pytest.approx([0, 2])


def test_a_line_out_of_order_goes_at_once_and_shifts_nothing() -> None:
    assert due([100, 105, 90, 106], 1) == pytest.approx([0, 5, 5, 6])


def test_time_lost_on_the_way_is_made_up() -> None:
    """The schedule is counted from the first line, so that delays do not add up."""
    assert due([0, 1, 2, 3], 1, busy_s=0.4) == pytest.approx([0, 1, 2, 3])
    assert due([0, 1, 2, 6], 1, busy_s=1.5) == pytest.approx([0, 1.5, 3, 6])


def test_at_full_speed_nothing_waits_and_no_time_is_needed() -> None:
    clock = Clock()
    pace = Pace(None, clock, clock.sleep)
    for line in (at(0), b'{"text": "no time"}', b"\xff broken", at(1e9)):
        pace.wait(line, "f:1")
    assert clock.slept == []


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.floats(0.01, 1000))
def test_no_line_goes_before_its_time_nor_later_than_it_must(times: list[float], speed: float) -> None:
    found, latest_s = due(times, speed), 0.0
    for time_s, went_s in zip(times, found, strict=True):
        latest_s = max(latest_s, (time_s - times[0]) / speed)
        assert went_s == pytest.approx(latest_s, abs=1e-4 + 1e-6 * latest_s)


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "ts",
    [NOON, int(NOON), "2026-03-01T12:00:00Z", "2026-03-01T12:00:00", "2026-03-01T13:00:00+01:00", "20260301T120000Z"],
)
def test_the_time_of_a_line(ts: object) -> None:
    assert event_time_s(json.dumps({"ts": ts}).encode(), "f:1") == NOON


@pytest.mark.parametrize(
    "line",
    [
        b"{}", b'{"ts": null}', b'{"ts": "yesterday"}', b'{"ts": [1]}', b'{"ts": {}}', b"[1]", b"7", b"\xff", b"{", b"",
        b'{"ts": true}', b'{"ts": NaN}', b'{"ts": 1e999}', b'{"ts": ""}',
    ],
)  # fmt: skip
def test_a_line_without_a_usable_time_names_its_place_and_the_way_out(line: bytes) -> None:
    with pytest.raises(ReplayError, match=r"day\.jsonl:17: no usable ts .*--speed max"):
        event_time_s(line, "day.jsonl:17")


@given(st.binary() | st.text().map(lambda text: json.dumps({"ts": text}).encode()))
def test_reading_the_time_of_anything_gives_a_time_or_the_error(line: bytes) -> None:
    try:
        assert isinstance(event_time_s(line, "f:1"), float)
    except ReplayError as error:
        assert str(error).startswith("f:1: ")


def test_a_time_further_off_than_any_clock_reaches_is_an_error_of_the_line() -> None:
    pace = Pace(1.0)
    pace.wait(at(0), "day.jsonl:1")
    with pytest.raises(ReplayError, match=r"day\.jsonl:2"):
        pace.wait(at(1e300), "day.jsonl:2")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (None, None), ("account", b"A7"), ("symbols", b"ACME"), ("deep.number", b"5"), ("deep", None), ("none", None),
        ("empty", None), ("account.more", None),
    ],
)  # fmt: skip
def test_the_key_of_a_line(path: str | None, key: bytes | None) -> None:
    line = b'{"account": "A7", "symbols": ["ACME", "XY"], "deep": {"number": 5}, "none": null, "empty": []}'
    assert key_of(line, path) == key


def test_a_broken_line_has_no_key() -> None:
    assert key_of(b"\xff{", "account") is None
    assert key_of(b"[1]", "account") is None


def test_lines_are_numbered_as_an_editor_does_and_limited(tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    file.write_bytes(b'{"a":1}\n\n{"a":2}\r\n   \n{"a":3}')
    assert list(lines_of(file, None)) == [(1, b'{"a":1}'), (3, b'{"a":2}'), (5, b'{"a":3}')]
    assert list(lines_of(file, 2)) == [(1, b'{"a":1}'), (3, b'{"a":2}')]


# ---- through a broker

LINES = [
    b'{"ts": 0, "text": "one", "account": "A", "unknown": {"x": [1, 2.50]}}',
    b'{"ts":1,"account":"B","text":"\xc3\xa9  two"}',
    b"{'ts': 2}",
    b"\xff\xfe broken",
    b'["a list"]',
    b'{"ts": 5, "text": "' + b"long" * 1000 + b'", "account": "A"}',
]


def recording(folder: Path, lines: list[bytes]) -> Path:
    file = folder / "day.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")
    return file


def config(broker: EmbeddedBroker) -> dict[str, object]:
    return {"bootstrap.servers": broker.bootstrap, "log_level": 0}


def test_every_line_arrives_byte_for_byte(
    embedded: EmbeddedBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    topic, sizes = unique("transactions"), list[int]()
    count = replay(recording(tmp_path, LINES), topic, config(embedded), pace=Pace(None), key_path="account",
                   on_sent=sizes.append)  # fmt: skip
    assert (count, sizes) == (6, [len(line) for line in LINES])
    found = {message.value(): message.key() for message in read_all(embedded.bootstrap, topic)}
    assert found == dict(zip(LINES, [b"A", b"B", None, None, None, b"A"], strict=True))


def test_white_space_around_a_line_is_kept(
    embedded: EmbeddedBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    topic, lines = unique("news"), [b'  {"text": "x"}\t', b"\x0b\xff\x0c"]
    replay(recording(tmp_path, lines), topic, config(embedded), pace=Pace(None))
    assert {message.value() for message in read_all(embedded.bootstrap, topic)} == set(lines)


def test_lines_of_one_key_keep_their_order(
    embedded: EmbeddedBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    topic = unique("news")
    lines = [b'{"ts": %d, "symbols": ["S%d"], "n": %d}' % (n, n % 5, n) for n in range(300)]
    assert replay(recording(tmp_path, lines), topic, config(embedded), pace=Pace(None), key_path="symbols") == 300
    by_key: dict[bytes | None, list[bytes | None]] = {}
    for message in read_all(embedded.bootstrap, topic):
        by_key.setdefault(message.key(), []).append(message.value())
    assert by_key == {b"S%d" % rest: [line for n, line in enumerate(lines) if n % 5 == rest] for rest in range(5)}


def test_the_limit_and_the_pace_hold(embedded: EmbeddedBroker, unique: Callable[[str], str], tmp_path: Path) -> None:
    topic, clock = unique("news"), Clock()
    file = recording(tmp_path, [at(100), at(160), at(220), at(280)])
    pace = Pace(60, clock, clock.sleep)
    assert replay(file, topic, config(embedded), pace=pace, limit=3) == 3
    assert clock.slept == pytest.approx([1, 1])
    assert [message.value() for message in read_all(embedded.bootstrap, topic)] != []


def test_what_was_sent_before_a_bad_line_is_there(
    embedded: EmbeddedBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    topic, clock = unique("news"), Clock()
    file = recording(tmp_path, [at(1), at(2), b'{"text": "no time"}'])
    with pytest.raises(ReplayError, match=r"day\.jsonl:3: no usable ts"):
        replay(file, topic, config(embedded), pace=Pace(1, clock, clock.sleep))
    assert len(read_all(embedded.bootstrap, topic)) == 2


def test_a_line_that_is_too_large_is_refused_with_its_place(
    embedded: EmbeddedBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """Larger than any event may be: whatever a configuration allows goes through."""
    file = recording(tmp_path, [at(1), b'{"text": "' + b"x" * 9_000_000 + b'"}'])
    with pytest.raises(ReplayError, match=r"day\.jsonl"):
        replay(file, unique("news"), config(embedded), pace=Pace(None))


def test_an_event_as_large_as_the_configuration_allows_goes_through(
    embedded: EmbeddedBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    line = b'{"text": "' + b"x" * 2_000_000 + b'"}'  # intake.max_event_bytes may be 5,000,000
    assert replay(recording(tmp_path, [line]), unique("news"), config(embedded), pace=Pace(None)) == 1
