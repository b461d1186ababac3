"""Hostile input events: random bytes, broken encodings, absurd JSON, and valid events with one thing made wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from tests.streams.records import FakeRecord

FIELDS = ("id", "ts", "title", "text", "symbols", "conversation", "account", "amount", "extra")
TIMESTAMPS = (None, -1, 0, 1, 1_760_000_000_000, 2**53, 2**62, 2**63 - 1, -(2**63))
LARGE_EVERY = 200  # inputs of up to ten megabytes among the small ones

Value = bytes | None


def hostile_records(count: int, seed: int, topic: str) -> Sequence[FakeRecord]:
    """So many records; the same again for the same seed."""
    rng = random.Random(seed)
    return [_record(rng, offset, topic) for offset in range(count)]


def _record(rng: random.Random, offset: int, topic: str) -> FakeRecord:
    make = rng.choice(LARGE) if rng.randrange(LARGE_EVERY) == 0 else rng.choice(SMALL)
    return FakeRecord(
        make(rng),
        offset,
        topic,
        timestamp=rng.choice(TIMESTAMPS),
        key=rng.choice((None, b"", b"k", rng.randbytes(8), b"\xff" * 600, b"\x00")),
        headers=_headers(rng),
    )


REDRIVE = ("streamgauge-redrive-of", "streamgauge-redrive-count", "streamgauge-redrive-first-seen",
           "streamgauge-redrive-timestamp")  # fmt: skip
REDRIVEN = (b"news/0/7", b"1", b"2026-01-01T00:00:00.000Z", b"-1")
NAMES = ("", "trace", "Faust-Ag-ReplyTo", "\x00", "naïve", "\\xff", "x" * 3000, "traceparent", *REDRIVE)


def _headers(rng: random.Random) -> list[tuple[str, bytes | None]]:
    """None, a few, or those of a redrive, true or forged."""
    values = (None, b"", rng.randbytes(5), b"9" * 400, b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", *REDRIVEN)
    some = [(rng.choice(NAMES), rng.choice(values)) for _ in range(rng.choice((0, 0, 0, 1, 20)))]
    return some if rng.random() < 0.9 else [*some, *zip(REDRIVE, REDRIVEN, strict=True)]


def good(rng: random.Random) -> dict[str, Any]:
    """An event that all sources take."""
    return {
        "id": f"e{rng.randrange(10**6)}",
        "ts": rng.choice((1_760_000_000, 1_760_000_000.25, "2025-10-09T08:53:20Z", "2025-10-09T08:53:20.5+02:00")),
        "title": "a title",
        "text": rng.choice(("plain words", "ünïcödé 漢字 🏦", "NaN and Infinity", "tab\tline\nend")),
        "symbols": ["ABC", "XY"],
        "conversation": "c1",
        "account": "a1",
        "amount": 12.5,
    }


def _values(rng: random.Random) -> Any:
    """A value of any type, as likely strange as not."""
    makers: tuple[Callable[[], Any], ...] = (
        lambda: None, lambda: rng.random() < 0.5, lambda: rng.choice((0, -1, 10**400, -(2**63), 2**64, 1e308)),
        lambda: rng.choice((float("nan"), float("inf"), float("-inf"))), lambda: "", lambda: "\t\n", lambda: "\x00" * 5,
        lambda: "\ud800", lambda: "x\udfff", lambda: "\u202e\ufeff\u2028", lambda: "y" * rng.choice((512, 513, 20_001)),
        lambda: [], lambda: {}, lambda: [None], lambda: [["nested"]], lambda: {"a": {"b": 1}}, lambda: ["s"] * 100,
        lambda: rng.choice(("0001-01-01", "9999-12-31T23:59:59Z", "2025-02-30", "2025-10-09T24:00:00Z", "1e9", "١٢")),
        lambda: rng.choice((1e11, 1e15, -62_135_596_801, 253_402_300_800, 10**30)),
    )  # fmt: skip
    return rng.choice(makers)()


def _dumped(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _escaped(body: Any) -> bytes:
    return json.dumps(body).encode()  # lone surrogates as \ud800, as hostile JSON has them


def a_good_one(rng: random.Random) -> Value:
    return _dumped(good(rng))


def one_field_wrong(rng: random.Random) -> Value:
    body = good(rng) | {rng.choice(FIELDS): _values(rng)}
    return rng.choice((_dumped, _escaped))(body)


def many_fields_wrong(rng: random.Random) -> Value:
    return _escaped({name: _values(rng) for name in FIELDS if rng.random() < 0.7})


def not_an_object(rng: random.Random) -> Value:
    return rng.choice((_dumped, _escaped))(_values(rng))


def random_bytes(rng: random.Random) -> Value:
    return rng.randbytes(rng.choice((0, 1, 2, 17, 300)))


def nothing(_: random.Random) -> Value:
    return None


def cut_short(rng: random.Random) -> Value:
    data = _dumped(good(rng))
    return data[: rng.randrange(len(data))]


def a_byte_changed(rng: random.Random) -> Value:
    data = bytearray(_dumped(good(rng)))
    for _ in range(rng.choice((1, 1, 3))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def a_piece_doubled(rng: random.Random) -> Value:
    data = _dumped(good(rng))
    first, last = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return data[:last] + data[first:]


def bytes_that_are_no_utf8(rng: random.Random) -> Value:
    bad = rng.choice((b"\xff", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xfe\xff"))
    return b'{"text": "a' + bad + b'b"}'


def other_encodings(rng: random.Random) -> Value:
    return json.dumps(good(rng)).encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")))


def duplicate_keys(rng: random.Random) -> Value:
    return b'{"text": "one", "text": ' + _escaped(_values(rng)) + b', "text": "three", "id": 1, "id": null}'


def deep(rng: random.Random) -> Value:
    depth = rng.choice((15, 16, 17, 500, 1_023, 1_025, 10_000))
    opened, closed = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    middle = b"1" if rng.random() < 0.8 else b""
    return b'{"text": "x", "extra": ' + opened * depth + middle + closed * (depth - rng.randrange(2)) + b"}"


def brackets_in_a_text(rng: random.Random) -> Value:
    return _dumped(good(rng) | {"text": "[{" * rng.choice((10, 5_000))})


def numbers_out_of_range(rng: random.Random) -> Value:
    number = rng.choice((b"1e999", b"-1e999", b"NaN", b"-Infinity", b"9" * 5_000, b"0." + b"1" * 5_000, b"01", b"0x1"))
    return b'{"text": "x", "' + rng.choice((b"ts", b"id", b"amount")) + b'": ' + number + b"}"


def many_fields(rng: random.Random) -> Value:
    return _dumped(good(rng) | {f"field {number}": number for number in range(rng.choice((1_000, 5_000)))})


def many_entities(rng: random.Random) -> Value:
    return _dumped(good(rng) | {"symbols": [f"S{number}" for number in range(2_000)]})


def at_the_limit(rng: random.Random) -> Value:
    size = 262_144 - len(b'{"text": ""}') + rng.choice((-1, 0, 1))
    return b'{"text": "' + b"z" * size + b'"}'


def ten_megabytes(rng: random.Random) -> Value:
    return rng.choice((b'{"text": "' + b"z" * 10_000_000 + b'"}', b"[" * 10_000_000, b"\xff" * 10_000_000))


def a_megabyte_of_escapes(_: random.Random) -> Value:
    return b'{"text": "' + b"\\ud83d\\ude00" * 80_000 + b'"}'


SMALL = (
    a_good_one, one_field_wrong, one_field_wrong, one_field_wrong, many_fields_wrong, not_an_object, random_bytes,
    nothing, cut_short, a_byte_changed, a_byte_changed, a_piece_doubled, bytes_that_are_no_utf8, other_encodings,
    duplicate_keys, numbers_out_of_range, brackets_in_a_text, deep,
)  # fmt: skip
LARGE = (ten_megabytes, a_megabyte_of_escapes, at_the_limit, many_fields, many_entities)
