"""What the surge detector remembers, and the records that carry it through a crash.

The detector's topic is compacted: one record per entity, one with the `Progress` of the partition. They are written
one by one, the progress last, so after a crash some entities may be ahead of the progress. A record therefore holds
two states, the new one and the one `before`, as it was at the progress written last:

    {"epoch": 3, "at": next offset when written, "state": {...} | null, "before": {...} | null}

A reader that finds `at` beyond its progress takes `before`. That rolls every entity back to one and the same offset,
and the log is replayed from there. Deletions follow the same rule: the record first says `"state": null`, and
the tombstone, which forgets `before`, is written only in the next round, when the progress has passed it.

Every recovery begins an epoch. Of two records for one key the one with the higher `precedence` counts, so that a
worker that was cut off and writes on cannot undo what its successor has written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
from typing_extensions import TypedDict


class Headline(TypedDict):
    """A text that counted as a hit; `score` is the probability of the label, `text` is cut to 280 characters."""

    text: str
    score: float
    id: str
    event_time_s: float


@dataclass(frozen=True, slots=True)
class Opening:
    """The last surge of an entity, kept while it is open or cools down.

    `origin` is the source partition whose clock it opened and resolves by, `bucket_s` the start of the newest bucket
    when it opened, `peak_ratio` the highest ratio it has reached.
    """

    alert_id: str
    origin: str
    opened_s: float
    bucket_s: int
    peak_ratio: float
    release: str
    is_open: bool = True


@dataclass(slots=True)
class EntityState:
    """One entity: sparse buckets (start in s -> hits, total), headlines of the window, last surge.

    `rank` is twice the offset of the last action, plus one where that was an observation of the entity itself (it
    comes after what the same offset's watermark caused): the order in which entities are dropped.
    """

    rank: int = 0
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    headlines: list[Headline] = field(default_factory=list)
    opening: Opening | None = None


@dataclass(slots=True)
class Clock:
    """One source partition: event time so far, the start of the first bucket of its history, and the last observation.

    `last` is the source offset and the place within its event of the newest observation: what is not beyond it has come
    again, as the observations of a partition come in the order of their source.
    """

    now_s: float
    first_seen_s: int
    last: tuple[int, int] = (-1, -1)


@dataclass(slots=True)
class Progress:
    """How far a partition's log has been read, with the clocks of the source partitions that feed it."""

    epoch: int = 0
    next_offset: int = 0
    clocks: dict[str, Clock] = field(default_factory=dict)
    late: int = 0


def encode_progress(progress: Progress) -> bytes:
    """JSON of the progress."""
    return orjson.dumps(progress)


def decode_progress(data: bytes | None) -> Progress:
    """The progress, or that of an unread log.

    Raises:
        ValueError: the record is not one that `encode_progress` wrote.
    """
    if data is None:
        return Progress()
    try:
        raw = orjson.loads(data)
        return Progress(**raw | {"clocks": {origin: _clock(clock) for origin, clock in raw["clocks"].items()}})
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"surge state: the progress record cannot be read ({error}); {_WAY_OUT}") from error


def _clock(raw: dict[str, Any]) -> Clock:
    offset, place = raw.pop("last", (-1, -1))  # a record of an older release has none
    return Clock(**raw, last=(offset, place))


def encode_state(state: EntityState | None) -> bytes:
    """JSON of one entity's state; `null` for none."""
    if state is None:
        return b"null"
    counts = [(start, hits, total) for start, (hits, total) in state.counts.items()]
    return orjson.dumps({"rank": state.rank, "counts": counts, "headlines": state.headlines, "opening": state.opening})


def encode_record(progress: Progress, state: bytes, before: bytes) -> bytes:
    """An entity's record, from its two encoded states."""
    return orjson.dumps(
        {
            "epoch": progress.epoch,
            "at": progress.next_offset,
            "state": orjson.Fragment(state),
            "before": orjson.Fragment(before),
        }
    )


def precedence(data: bytes) -> tuple[int, int]:
    """Of two records for one key, an entity's or the progress, the one where this is higher counts.

    An offset alone would not do: after a recovery the records that were ahead are overtaken by ones with lower offsets.
    """
    record = orjson.loads(data)
    return record["epoch"], record["at"] if "at" in record else record["next_offset"]


@dataclass(frozen=True, slots=True)
class Record:
    """An entity's record as read: its state at the reader's offset, and whether it was written further on."""

    state: EntityState | None
    ahead: bool
    epoch: int


def decode_record(entity: str, data: bytes, next_offset: int) -> Record:
    """Read an entity's record, rolled back to `next_offset` if it is ahead.

    Raises:
        ValueError: the record is not one that `encode_record` wrote.
    """
    try:
        record = orjson.loads(data)
        ahead = record["at"] > next_offset
        return Record(_state(record["before" if ahead else "state"]), ahead, record["epoch"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"surge state: the record of {entity[:80]!r} cannot be read ({error}); {_WAY_OUT}") from error


_WAY_OUT = "empty the surge-state topic to start with no history"


def _state(raw: dict[str, Any] | None) -> EntityState | None:
    if raw is None:
        return None
    return EntityState(
        rank=raw["rank"],
        counts={start: (hits, total) for start, hits, total in raw["counts"]},
        headlines=raw["headlines"],
        opening=Opening(**raw["opening"]) if raw["opening"] else None,
    )
