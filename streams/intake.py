"""Raw records to events: every record gets exactly one verdict, an `Event` or a `Rejected`.

Nothing of Faust decodes a byte. Every bound on hostile input is here: size, encoding, JSON, depth, types, length, time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, Self

import orjson

from streams.events import Coordinates, Event, Rejected, iso
from streams.lineage import lineage_of, redriven_of
from streams.settings import IntakeSettings, Source

MAX_ID_CHARS = 512
MAX_ENTITY_CHARS = 200
MAX_ENTITIES = 50
_new = tuple.__new__  # makes a named tuple in half the time that calling its class takes
_NOT_FINITE = re.compile(rb"(?<![\w\"])-?(?:NaN|Infinity)(?![\w\"])")


class Record(Protocol):
    """What a Kafka client hands over; `timestamp` in milliseconds, -1 or None when the broker has none."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int | None: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...  # noqa: D102


class Unreadable(bytes):
    """Empty, in the place of a value that could not be read: `error` and `message` say why, as in `BadInput`.

    A type and not a header or a value, so that nobody can send one.
    """

    error: str
    message: str

    def __new__(cls, error: str, message: str) -> Self:
        """Nothing, with the reason."""
        made = super().__new__(cls)
        made.error, made.message = error, message
        return made


class BadInput(Exception):
    """Why an input is refused: `error` is one of a fixed set of classes, the text is for a person."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


class Intake:
    """Decodes the records of one source.

    Args:
        name: the source's name in the settings.
        source: its fields.
        limits: the bounds.
    """

    def __init__(self, name: str, source: Source, limits: IntakeSettings) -> None:
        self.name = name
        self._limits = limits
        self._text_paths = [tuple(path.split(".")) for path in source.text]
        self._id_path, self._time_path, self._key_path, self._entities_path = (
            tuple(path.split(".")) if path else None for path in (source.id, source.time, source.key, source.entities)
        )
        # Where each field is, when it is at the top; no JSON object has a field None.
        self._id_name, self._time_name, self._key_name = (
            path[0] if path and len(path) == 1 else None for path in (self._id_path, self._time_path, self._key_path)
        )
        self._text_name = source.text[0] if [len(path) for path in self._text_paths] == [1] else None
        self._time_where = f"field {source.time!r}"
        earliest = limits.earliest_time
        self._earliest_s = (earliest if earliest.tzinfo else earliest.replace(tzinfo=UTC)).timestamp()

    def decode(self, records: Sequence[Record], now_s: float) -> list[Event | Rejected]:
        """One verdict for each record, in order. `now_s` is the wall clock; never raises."""
        return [self._verdict(record, now_s) for record in records]

    def _verdict(self, record: Record, now_s: float) -> Event | Rejected:
        at = _new(Coordinates, (record.topic, record.partition, record.offset))
        try:
            return self._event(at, record, now_s)
        except BadInput as bad:
            return Rejected(at, "intake", bad.error, f"{at}: {bad}"[:1024])
        except Exception as error:  # a hole in the checks above must not stop the stream
            return Rejected(at, "intake", "Unexpected", f"{at}: {type(error).__name__}: {error}"[:1024])

    def _event(self, at: Coordinates, record: Record, now_s: float) -> Event:
        """The usual shape of each field is recognised right here: a call for each costs as much as parsing the JSON."""
        body = parse(record.value, self._limits)
        origin, timestamp_ms, lineage = at, record.timestamp, None
        if record.headers and (redriven := redriven_of(record.headers, at)):
            origin, timestamp_ms = redriven.origin, redriven.timestamp_ms
            lineage = lineage_of(origin, record.key, record.value)
        field = body.get
        found = field(self._id_name)
        event_id = found if type(found) is str and 0 < len(found) <= MAX_ID_CHARS else self._id(body, origin)
        found = field(self._time_name)
        event_time, event_time_s = self._usual_time(found, now_s) or self._time(body, timestamp_ms, now_s)
        found = field(self._text_name)
        text = found.strip() if type(found) is str else ""
        if not 0 < len(text) <= self._limits.max_text_chars:
            text = self._text(body)
        found = field(self._key_name)
        key = found if type(found) is str and 0 < len(found) <= MAX_ID_CHARS else self._key(body, record.key, event_id)
        entities = self._entities(body) if self._entities_path else ()
        return _new(Event, (self.name, at, event_id, event_time, event_time_s, text, key, entities, lineage))

    def _text(self, body: dict[str, Any]) -> str:
        text = ""
        for path in self._text_paths:
            part = _at(body, path)
            if part is None:
                continue
            if not isinstance(part, str):
                raise BadInput("WrongShape", f"field {'.'.join(path)!r} must be a string, not {_kind(part)}")
            if part := part.strip():
                text = f"{text}\n{part}" if text else part
        if not text:
            names = ", ".join(".".join(path) for path in self._text_paths)
            raise BadInput("EmptyText", f"no text in any of the fields {names}")
        if len(text) > self._limits.max_text_chars:
            raise BadInput(
                "TooLarge", f"{len(text)} characters of text; intake.max_text_chars is {self._limits.max_text_chars}"
            )
        return text

    def _id(self, body: dict[str, Any], at: Coordinates) -> str:
        found = _at(body, self._id_path)
        return str(at) if found is None else _label(found, "id", self._id_path)

    def _key(self, body: dict[str, Any], record_key: bytes | None, event_id: str) -> str:
        if (found := _at(body, self._key_path)) is not None:
            if isinstance(found, list):
                found = found[0] if found else None
            if found is not None:
                return _label(found, "key", self._key_path)
        return record_key.decode("utf-8", "replace")[:MAX_ID_CHARS] if record_key else event_id

    def _entities(self, body: dict[str, Any]) -> tuple[str, ...]:
        found = _at(body, self._entities_path)
        if found is None:
            return ()
        names = [found] if isinstance(found, str) else found
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            where = ".".join(self._entities_path or ())
            raise BadInput("WrongShape", f"field {where!r} must be a string or a list of strings")
        cut = (name.strip()[:MAX_ENTITY_CHARS] for name in names[:MAX_ENTITIES])
        return tuple(dict.fromkeys(name for name in cut if name))

    def _usual_time(self, found: Any, now_s: float) -> tuple[str, float] | None:
        """A time that is worded as `iso` words it and within bounds; None for every other, which `_time` judges."""
        if (worded := _canonical(found)) is None:
            return None
        try:
            seconds = datetime.fromisoformat(found).timestamp()
        except (ValueError, OverflowError):
            return None
        return (worded, seconds) if self._earliest_s <= seconds <= now_s + self._limits.max_future_s else None

    def _time(self, body: dict[str, Any], record_ms: int | None, now_s: float) -> tuple[str, float]:
        found = _at(body, self._time_path)
        if found is None:
            if record_ms is None or record_ms <= 0:
                return iso(now_s), now_s
            where, found, seconds = "the record's time stamp", record_ms, record_ms / 1000
        else:
            where = self._time_where
            seconds = seconds_of(found, where)
        if not self._earliest_s <= seconds <= now_s + self._limits.max_future_s:
            hint = "; milliseconds, perhaps? seconds are expected" if seconds > 1e11 else ""
            raise BadInput("BadTime", f"{where} is {found!r}, outside intake.earliest_time .. now + max_future_s{hint}")
        return _canonical(found) or iso(seconds), seconds


def parse(value: bytes | None, limits: IntakeSettings) -> dict[Any, Any]:
    """The JSON object in a record, if it is one within the limits. Raises BadInput."""
    if value is None:
        raise BadInput("NullValue", "the record has no value (a tombstone)")
    if len(value) > limits.max_event_bytes:
        raise BadInput("TooLarge", f"{len(value)} bytes; intake.max_event_bytes is {limits.max_event_bytes}")
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise _not_json(value, error) from None
    if not isinstance(body, dict):
        raise BadInput("WrongShape", f"a JSON object is expected, not {_kind(body)}")
    if (
        (value.rfind(b"{") or value.rfind(b"[") >= 0)  # else it is flat; this takes half the time of counting
        and value.count(b"{") + value.count(b"[") > limits.max_depth
        and depth(body, limits.max_depth) > limits.max_depth
    ):
        raise BadInput("TooDeep", f"nested deeper than intake.max_depth = {limits.max_depth}")
    return body


def depth(value: Any, limit: int) -> int:
    """Nesting depth of parsed JSON, counted no further than one beyond `limit`; a scalar has depth 0, `[]` has 1."""
    found, level = 0, [value] if isinstance(value, (dict, list)) else []
    while level and found <= limit:
        found += 1
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
    return found


def _not_json(value: bytes, error: orjson.JSONDecodeError) -> BadInput:
    if isinstance(value, Unreadable):
        return BadInput(value.error, value.message)
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as bad:
        return BadInput("NotUtf8", f"not UTF-8: {bad.reason} at byte {bad.start}")
    reason = str(error)
    if "depth limit" in reason or "recursion" in reason:  # how orjson words its own limit of 1,024 levels
        return BadInput("TooDeep", f"nested too deeply to parse: {reason}")
    if "infinity" in reason:
        return BadInput("NotFinite", f"a number is out of range: {reason}")
    if _NOT_FINITE.search(value):
        try:
            json.loads(value)
        except (ValueError, RecursionError):
            pass
        else:
            return BadInput("NotFinite", "NaN and Infinity are not JSON numbers")
    return BadInput("NotJson", f"not JSON: {reason}")


def _at(body: dict[str, Any], path: tuple[str, ...] | None) -> Any:
    if path is None:
        return None
    if len(path) == 1:  # nearly always, and this is the hot path
        return body.get(path[0])
    node: Any = body
    for part in path:
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            return None
    return node


def _label(found: Any, what: str, path: tuple[str, ...] | None) -> str:
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise BadInput("WrongShape", f"field {'.'.join(path or ())!r} ({what}) must be a string or a whole number")
    text = str(found)
    if not 0 < len(text) <= MAX_ID_CHARS:
        raise BadInput(
            "WrongShape", f"field {'.'.join(path or ())!r} ({what}) must have 1 to {MAX_ID_CHARS} characters"
        )
    return text


def seconds_of(found: Any, where: str) -> float:
    """Seconds since 1970 of a time as JSON may hold it; `where` it was found. Raises BadInput."""
    if isinstance(found, str):
        try:
            moment = datetime.fromisoformat(found)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            pass
    elif isinstance(found, (int, float)) and not isinstance(found, bool):
        if not math.isfinite(found):
            raise BadInput("NotFinite", f"{where} is not a finite number")
        return float(found)
    raise BadInput("BadTime", f"{where} must be ISO 8601 or seconds since 1970, not {str(found)[:60]!r}")


def _canonical(found: Any) -> str | None:
    """A time that is already worded as `iso` words it, give or take the milliseconds; None for any other."""
    if type(found) is not str or (size := len(found)) not in (20, 24):
        return None
    if found[-1] != "Z" or found[7] != "-" or found[10] != "T":
        return None
    if size == 20:
        return f"{found[:19]}.000Z"
    return found if found[19] == "." else None


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )
