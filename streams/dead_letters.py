"""What is in the dead-letter topic: letters and marks, which letters somebody means, how to show them unharmed. Pure.

A mark is a record with a null value whose headers name a letter that was redriven. It lies in the letter's partition,
behind it, so it is kept at least as long as the letter.
"""

from __future__ import annotations

import base64
import heapq
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from streams.events import Coordinates, DeadLetter, iso
from streams.lineage import Headers, Redriven, headers_of, trace_id

MARK_HEADER = "streamgauge-redriven-letter"
MAX_ID_CHARS = 1024
MAX_EXAMPLES = 20
_LETTER = TypeAdapter(DeadLetter)


class NotALetter(ValueError):
    """A record of the dead-letter topic that no worker has written."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as read, with its original bytes. `lies` is its own place in the dead-letter topic."""

    lies: Coordinates
    topic_key: bytes | None
    said: DeadLetter
    origin: Coordinates
    key: bytes | None
    value: bytes | None
    headers: Headers
    failed_at_s: float
    first_seen_at: str
    timestamp_ms: int

    @property
    def id(self) -> str:
        """The letter's id; the same for every copy of it."""
        return self.said["id"]

    @property
    def topic(self) -> str:
        """The topic the event lies in."""
        return self.origin.topic

    @property
    def partition(self) -> int:
        """The partition the event lies in; it never leaves it."""
        return self.origin.partition

    def redrive_headers(self) -> list[tuple[str, bytes | None]]:
        """The headers to send the event back with."""
        redriven = Redriven(self.origin, self.said["redrives"] + 1, self.first_seen_at, self.timestamp_ms)
        return headers_of(redriven, self.headers)


def letter_of(lies: Coordinates, topic_key: bytes | None, value: bytes) -> Letter:
    """Read a record of the dead-letter topic.

    Raises:
        NotALetter: it is none; the message says why, without any of its content.
    """
    try:
        raw = orjson.loads(value)
        if not isinstance(raw, dict):
            raise NotALetter(f"{lies}: not a JSON object")
        said = _LETTER.validate_python(_completed(raw))
        if len(said["id"]) > MAX_ID_CHARS:
            raise NotALetter(f"{lies}: its id has more than {MAX_ID_CHARS} characters")
        return Letter(
            lies,
            topic_key,
            said,
            _origin(lies, said),
            _bytes(said["key_base64"]),
            _bytes(said["value_base64"]),
            [(name, _bytes(data)) for name, data in said["headers_base64"]],
            _seconds(said["failed_at"]),
            iso(_seconds(said["first_seen_at"])),
            -1 if said["timestamp"] is None else max(-1, round(1000 * _seconds(said["timestamp"]))),
        )
    except orjson.JSONDecodeError:
        raise NotALetter(f"{lies}: not JSON") from None
    except ValidationError as error:
        fields = sorted({str(one["loc"][0]) for one in error.errors(include_input=False) if one["loc"]})
        raise NotALetter(f"{lies}: not a dead letter (see {', '.join(fields)})") from None
    except NotALetter:
        raise
    except (OverflowError, ValueError):
        raise NotALetter(f"{lies}: a time or the base64 in it cannot be read") from None


def _origin(lies: Coordinates, said: DeadLetter) -> Coordinates:
    """An event never leaves its partition: a letter that says otherwise would send it elsewhere."""
    source = said["source"]
    where, _, offset = said["origin"].rpartition("/")
    if where != f"{source['topic']}/{source['partition']}" or not re.fullmatch(r"[0-9]{1,19}", offset):
        raise NotALetter(f"{lies}: its origin is not in the partition of its source")
    return Coordinates(source["topic"], source["partition"], int(offset))


def _completed(raw: dict[str, Any]) -> dict[str, Any]:
    """What letters of version 0.1.0 do not say; they were never redriven."""
    source = raw.get("source")
    where = source if isinstance(source, dict) else {}
    origin = f"{where.get('topic')}/{where.get('partition')}/{where.get('offset')}"
    never = {"attempts": 1, "redrives": 0, "release": None, "truncated": False, "origin": origin}
    return never | {"trace_id": trace_id((), origin), "first_seen_at": raw.get("failed_at")} | raw


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)


def _seconds(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True, slots=True)
class Filters:
    """Which letters are meant; None and nothing mean all. Times are those of the failure, seconds since 1970.

    `error` is looked for in the class and the message, whatever the case of its letters.
    """

    ids: frozenset[str] = frozenset()
    topic: str | None = None
    partition: int | None = None
    stage: str | None = None
    error: str | None = None
    since_s: float | None = None
    until_s: float | None = None

    def match(self, letter: Letter) -> bool:
        """Whether this letter is one of them."""
        said = letter.said
        return (
            (not self.ids or letter.id in self.ids)
            and self.topic in (None, letter.topic)
            and self.partition in (None, letter.partition)
            and self.stage in (None, said["stage"])
            and (self.error is None or self.error.casefold() in f"{said['error']}: {said['message']}".casefold())
            and (self.since_s is None or letter.failed_at_s >= self.since_s)
            and (self.until_s is None or letter.failed_at_s < self.until_s)
        )


class Refusal(NamedTuple):
    """Why a letter is not sent back, for counting, and in words."""

    kind: str
    words: str


def refusal(letter: Letter, max_redrives: int, topics: Collection[str]) -> Refusal | None:
    """Why this letter may not be redriven; None when it may.

    `topics` are those this configuration reads: a forged letter must not write anywhere else.
    """
    said, topic = letter.said, letter.topic
    if topic not in topics:
        known = ", ".join(sorted(topics))
        return Refusal("not-a-source", f"topic {printable(topic)!r} is not read by this configuration ({known})")
    if said["truncated"]:
        return Refusal("truncated", f"its bytes are not all here; the whole event is at {letter.origin}")
    if said["redrives"] >= max_redrives:
        tried = f"redriven {said['redrives']} times and failed again; the most is {max_redrives}"
        return Refusal("too-often", f"{tried} (--max-redrives): mend the cause first")
    return None


@dataclass
class Listing:
    """The newest letters that were meant, and how many there were in all, copies counted."""

    letters: list[Letter]
    matching: int
    redriven: int


def newest(
    letters: Iterable[Letter], filters: Filters, marks: Collection[int], limit: int, with_redriven: bool
) -> Listing:
    """At most `limit` of the letters meant, the newest of them, oldest first, each once.

    `marks` are the hashes of the ids of those that were redriven. No more than `limit` letters are held, and none of
    them with its bytes.
    """
    kept: dict[str, Letter] = {}
    oldest: list[tuple[float, str]] = []
    matching = redriven = 0
    for letter in letters:
        if not filters.match(letter):
            continue
        if was_redriven := hash(letter.id) in marks:
            redriven += 1
        if was_redriven and not with_redriven:
            continue
        matching += 1
        if letter.id not in kept:
            kept[letter.id] = replace(letter, key=None, value=None, headers=(), said=_without_bytes(letter.said))
            heapq.heappush(oldest, (letter.failed_at_s, letter.id))
        if len(kept) > limit:
            del kept[heapq.heappop(oldest)[1]]
    return Listing(sorted(kept.values(), key=lambda one: (one.failed_at_s, one.id)), matching, redriven)


def _without_bytes(said: DeadLetter) -> DeadLetter:
    return {**said, "key_base64": None, "value_base64": None, "headers_base64": [], "message": said["message"][:1024]}


@dataclass
class Plan:
    """Which letters to redrive, by partition and offset of the dead-letter topic; and what is said of the others.

    `refused` counts by kind, `examples` names some of them; `redriven` were redriven before; `beyond` are left for the
    next time by the limit.
    """

    chosen: dict[int, set[int]] = field(default_factory=dict)
    by_topic: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, Refusal]] = field(default_factory=list)
    redriven: int = 0
    beyond: int = 0

    @property
    def letters(self) -> int:
        """How many are to go."""
        return sum(map(len, self.chosen.values()))

    @property
    def ranges(self) -> dict[int, tuple[int, int]]:
        """What must be read again to send them."""
        return {part: (min(offsets), max(offsets) + 1) for part, offsets in self.chosen.items()}


def plan_of(
    letters: Iterable[Letter],
    filters: Filters,
    marks: Collection[int],
    limit: int,
    max_redrives: int,
    topics: Collection[str],
) -> Plan:
    """The first `limit` letters meant that may be redriven, each once however many copies of it there are."""
    plan, decided = Plan(), set[str]()
    for letter in letters:
        if not filters.match(letter) or letter.id in decided:
            continue
        if hash(letter.id) in marks:
            plan.redriven += 1
        elif why := refusal(letter, max_redrives, topics):
            plan.refused[why.kind] += 1
            if len(plan.examples) < MAX_EXAMPLES:
                plan.examples.append((letter.id, why))
        elif len(decided) >= limit:
            plan.beyond += 1
        else:
            decided.add(letter.id)
            plan.chosen.setdefault(letter.lies.partition, set()).add(letter.lies.offset)
            plan.by_topic[letter.topic] += 1
    return plan


def printable(text: str, limit: int = 200) -> str:
    """Text that is safe on a terminal: at most `limit` characters of it, all that could control it escaped."""
    cut = text[:limit]
    shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in cut)
    return shown if len(text) <= limit else f"{shown}… ({len(text) - limit:,} more)"


def printable_bytes(data: bytes | None, limit: int = 4000) -> str:
    """As `printable`, of bytes that should be UTF-8; those that are not are escaped one by one."""
    if data is None:
        return "none"
    shown = printable(data[:limit].decode("utf-8", "backslashreplace"), 4 * limit)
    return shown if len(data) <= limit else f"{shown}… ({len(data) - limit:,} more bytes)"


def marked(headers: Headers | None) -> Sequence[str]:
    """The ids of the letters that a mark's headers name."""
    return [value.decode("utf-8", "replace") for name, value in headers or () if name == MARK_HEADER and value]
