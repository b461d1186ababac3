"""Lineage: a redriven event is known again, and nobody can pass for another."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.events import Coordinates
from streams.lineage import Redriven, headers_of, lineage_of, redriven_of, trace_id

AT = Coordinates("news", 2, 900)
FIRST = Redriven(Coordinates("news", 2, 41), 1, "2026-03-01T12:00:00.000Z", 1_772_366_400_000)
NAMES = [name for name, _ in headers_of(FIRST, ())]

any_bytes = st.none() | st.binary(max_size=60)
any_headers = st.lists(st.tuples(st.sampled_from([*NAMES, "traceparent", "x"]) | st.text(max_size=9), any_bytes))


@given(st.integers(0, 2**63 - 1), st.integers(1, 999_999), st.integers(-1, 10**18 - 1), any_headers)
@settings(deadline=None)
def test_what_is_sent_along_is_read_again_and_the_events_own_headers_stay(
    offset: int, times: int, timestamp_ms: int, own: list[tuple[str, bytes | None]]
) -> None:
    redriven = Redriven(Coordinates("news", 2, offset), times, "2026-03-01T12:00:00.000Z", timestamp_ms)
    headers = headers_of(redriven, own)
    assert redriven_of(headers, AT) == redriven
    assert [one for one in headers if one[0] not in NAMES] == [one for one in own if one[0] not in NAMES]
    again = redriven._replace(times=times + 1)
    assert [name for name, _ in headers_of(again, headers)] == [name for name, _ in headers], "they pile up"


@given(any_headers)
@settings(deadline=None)
def test_any_headers_give_a_redrive_of_the_same_partition_or_none(headers: list[tuple[str, bytes | None]]) -> None:
    found = redriven_of(headers, AT)
    assert found is None or (found.origin[:2] == AT[:2] and found.times >= 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("of", b"news/3/41"), ("of", b"chat/2/41"), ("of", b"news/2/x"), ("of", b"news/2/41/redriven-0"), ("of", None),
        ("of", b"news/2/" + b"9" * 5000), ("count", b"0"), ("count", b"-1"), ("count", b"1" * 5000), ("count", b"1 "),
        ("count", "٣".encode()), ("first-seen", b"\x1b[2J"), ("first-seen", b"yesterday"), ("timestamp", b"1e9"),
    ],
)  # fmt: skip
def test_headers_that_redrive_does_not_write_are_not_believed(name: str, value: bytes | None) -> None:
    headers = [(one, value if one.endswith(name) else said) for one, said in headers_of(FIRST, ())]
    assert redriven_of(headers, AT) is None


def test_a_header_missing_or_twice_is_not_believed() -> None:
    headers = headers_of(FIRST, ())
    for place, one in enumerate(headers):
        assert redriven_of(headers[:place] + headers[place + 1 :], AT) is None
        assert redriven_of([*headers, one], AT) is None
    assert redriven_of(None, AT) is None


@given(any_bytes, any_bytes, any_bytes, any_bytes)
@settings(deadline=None)
def test_only_the_same_bytes_give_the_same_lineage(
    key: bytes | None, value: bytes | None, other_key: bytes | None, other_value: bytes | None
) -> None:
    """Else a forged header could take the ids of an event that says something else, and consumers would drop that."""
    same = (key, value or b"") == (other_key, other_value or b"")
    assert (lineage_of(FIRST.origin, key, value) == lineage_of(FIRST.origin, other_key, other_value)) == same
    assert lineage_of(FIRST.origin, key, value).startswith("news/2/41/redriven-")


def test_key_and_value_are_told_apart() -> None:
    assert lineage_of(AT, b"ab", b"c") != lineage_of(AT, b"a", b"bc")
    assert lineage_of(AT, None, b"1:") != lineage_of(AT, b"", b"1:")


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("given", "valid"),
    [
        (f"00-{TRACE}-{PARENT}-01", True), (f"00-{TRACE}-{PARENT}-00", True), (f"cc-{TRACE}-{PARENT}-01", True),
        (f"cc-{TRACE}-{PARENT}-01-more-of-it", True), (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"ff-{TRACE}-{PARENT}-01", False), (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False), (f"00-{TRACE}-{'0' * 16}-01", False), (f"00-{TRACE}-{PARENT}", False),
        (f" 00-{TRACE}-{PARENT}-01", False), ("", False), (f"cc-{TRACE}-{PARENT}-01-" + "x" * 1000, False),
    ],
)  # fmt: skip
def test_the_trace_id_is_that_of_a_valid_traceparent_else_one_of_its_own(given: str, valid: bool) -> None:
    found = trace_id([("other", b"x"), ("TraceParent", given.encode())], "news/2/41")
    assert re.fullmatch(r"[0-9a-f]{32}", found)
    assert (found == TRACE) == valid
    assert valid or found == trace_id((), "news/2/41") != trace_id((), "news/2/42")


def test_two_traceparents_say_nothing() -> None:
    one = ("traceparent", f"00-{TRACE}-{PARENT}-01".encode())
    assert trace_id([one], "news/2/41") == TRACE
    assert trace_id([one, one], "news/2/41") != TRACE
    assert trace_id([("traceparent", None)], "news/2/41") == trace_id(None, "news/2/41")
    assert trace_id([("traceparent", b"\xff\x00")], "news/2/41") == trace_id(None, "news/2/41")
