"""Who an event is when it comes a second time: redriven from the dead letters, or traced by somebody else.

A redriven event has new coordinates, but its outputs must have the ids of the redrive before, or nobody could tell
that a letter was redriven twice. Headers that `redrive` adds say where the event lay first. Anybody who may write to
the source could forge them, so they are believed only as far as that does no harm: the event must lie in the partition
it says it comes from, and what it goes by contains a digest of its bytes. A forged event can then neither take the id
of a first-hand one, nor that of a redriven one which says something else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from streams.events import Coordinates

Headers = Sequence[tuple[str, bytes | None]]

_OF, _COUNT = "streamgauge-redrive-of", "streamgauge-redrive-count"
_FIRST_SEEN, _TIMESTAMP = "streamgauge-redrive-first-seen", "streamgauge-redrive-timestamp"
_SHAPES = {
    _OF: re.compile(rb"[A-Za-z0-9._-]{1,249}/\d{1,10}/\d{1,19}"),
    _COUNT: re.compile(rb"[1-9]\d{0,5}"),
    _FIRST_SEEN: re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"),
    _TIMESTAMP: re.compile(rb"-1|\d{1,18}"),
}
# W3C Trace Context: version, trace id, parent id, flags; later versions may go on after another dash.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class Redriven(NamedTuple):
    """What a redriven event brings along: where it lay first, how often it was redriven, when it first failed.

    `timestamp_ms` is the broker's time stamp of the first record, -1 where there was none.
    """

    origin: Coordinates
    times: int
    first_seen_at: str
    timestamp_ms: int


def redriven_of(headers: Headers | None, at: Coordinates) -> Redriven | None:
    """What the headers of the record at these coordinates say of its redrives; None when it is (or must pass for) new.

    All four headers must be there once, well-formed, and name the partition the record lies in.
    """
    found: dict[str, bytes] = {}
    for name, value in headers or ():
        if (shape := _SHAPES.get(name)) is not None:
            if value is None or name in found or not shape.fullmatch(value):
                return None
            found[name] = value
    if len(found) < len(_SHAPES):
        return None
    where, _, offset = found[_OF].decode().rpartition("/")
    if where != f"{at.topic}/{at.partition}":
        return None
    origin = Coordinates(at.topic, at.partition, int(offset))
    return Redriven(origin, int(found[_COUNT]), found[_FIRST_SEEN].decode(), int(found[_TIMESTAMP]))


def headers_of(redriven: Redriven, headers: Headers) -> list[tuple[str, bytes | None]]:
    """The headers to redrive with: the event's own unchanged, and what `redriven_of` reads."""
    said = {
        _OF: str(redriven.origin),
        _COUNT: str(redriven.times),
        _FIRST_SEEN: redriven.first_seen_at,
        _TIMESTAMP: str(redriven.timestamp_ms),
    }
    own = [(name, value) for name, value in headers if name not in _SHAPES]
    return own + [(name, value.encode()) for name, value in said.items()]


def lineage_of(origin: Coordinates, key: bytes | None, value: bytes | None) -> str:
    """What a redriven event goes by, however often it is: its origin and a digest (64 bits) of its key and value."""
    digest = hashlib.sha256(b"%d:" % (-1 if key is None else len(key)))
    digest.update(key or b"")
    digest.update(value or b"")
    return f"{origin}/redriven-{digest.hexdigest()[:16]}"


def trace_id(headers: Headers | None, origin: str) -> str:
    """32 hexadecimal digits: of the one valid W3C `traceparent` header, else derived from where the event lay first."""
    given = [value for name, value in headers or () if name.lower() == "traceparent"]
    if len(given) == 1 and given[0] is not None and len(given[0]) <= 512:
        text = given[0].decode("ascii", "replace")
        found = _TRACEPARENT.fullmatch(text)
        if found and (len(text) == 55 or not text.startswith("00")):
            return found[1]
    return hashlib.sha256(origin.encode()).hexdigest()[:32]
