"""Surges: unusually many hits about one entity, against its own recent past. Pure: no I/O, no clock.

    observe(offset, observation) -> [SurgeChange]       time comes from the events and order from the offsets alone

Buckets are tumbling spans of event time. The window is the newest `window_buckets` of them, the baseline the
`baseline_buckets` before. A bucket is closed once the watermark (highest event time - `lateness_s`) has passed its end:
what arrives for it later is counted as late and changes nothing. A surge opens on a hit, over the newest window; it
resolves when a bucket closes, over the closed window and what is newer, so that it waits for its data to be complete.

Every source partition has a clock of its own: a replay reads partitions at different speeds, and one that is ahead must
not make another's events late. So what happens to an entity whose events share a partition does not depend on how
partitions are interleaved.

A source that is read again after a crash sends its observations again, at new offsets. Those of one source partition
come in its order, so what is not beyond the last of them has been counted.

Everything here is a function of the log: `surge_codec` says how that survives a crash at any point.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

from streams.events import Observation
from streams.settings import SurgeSettings
from streams.surge_codec import (
    Clock,
    EntityState,
    Headline,
    Opening,
    Progress,
    decode_progress,
    decode_record,
    encode_progress,
    encode_record,
    encode_state,
)
from streams.surge_rule import (
    Severity,
    SurgeCounts,
    baseline_s,
    count_window,
    is_over,
    is_surge,
    severity,
    window_s,
)

MAX_EVIDENCE = 5
MAX_HEADLINES = 60  # a wide window must still fit into a record
MAX_TEXT_CHARS = 280
MAX_ID_CHARS = 200
MAX_ORIGINS = 1_000  # source partitions; what made-up ids bring beyond them shares one clock
MAX_BUCKETS = 12_000  # of one entity, over all source partitions: it must fit into a record
_PLACE = re.compile(r"[^/]+/[0-9]+/([0-9]{1,19})/observation/([0-9]{1,9})")
ENTITY_BYTES, BUCKET_BYTES, HEADLINE_BYTES = 800, 200, 1_500  # about what they take in memory, rather more than less


@dataclass(frozen=True, slots=True)
class SurgeChange:
    """A surge opened or resolved when event time had reached `event_time_s`.

    `alert_id` is the same for both; `severity` of a resolved surge is the highest it reached; `release` is that of
    the observation that opened it.
    """

    alert_id: str
    state: Literal["open", "resolved"]
    entity: str
    severity: Severity
    event_time_s: float
    counts: SurgeCounts
    evidence: tuple[Headline, ...]
    release: str

    @property
    def output_id(self) -> str:
        """Unique among all changes, and the same again when the log is replayed."""
        return f"{self.alert_id}/{self.state}"


class SurgeDetector:
    """The surges of one partition, fed in offset order.

    To persist, in this order and with no observation skipped: write the changes `observe` and `advance` returned,
    then all of `changed()`, then `meta()`, then commit the offset; each acknowledged before the next begins, and the
    whole round before the next `changed()`. A process that could not finish a round must not go on: `restored`.

    Room is bounded by `max_entities` and `max_state_mib`. Where it is short, the entity longest untouched that is in no
    surge is forgotten; where all are in one, what is new is refused, and an entity that grows loses its earliest texts,
    then its earliest buckets. All of it follows from the log alone, so a replay forgets the same.
    """

    def __init__(self, settings: SurgeSettings) -> None:
        self._settings = settings
        self._window_s = window_s(settings)
        self._most_bytes = int(settings.max_state_mib * 2**20)
        self._memory_s = window_s(settings) + baseline_s(settings)
        self._progress = Progress()
        self._entities: dict[str, EntityState] = {}
        self._held: set[str] = set()  # entities whose surge is open or cools down: never dropped
        self._idle: OrderedDict[str, None] = OrderedDict()  # the others, longest untouched first
        self._before: dict[str, bytes] = {}  # of what has changed since the last round: the state before it
        self._deleted: set[str] = set()  # in the last round; tombstones are due
        self._meta = encode_progress(self._progress)
        self._bytes = 0
        self.repeated = 0  # observations since the start that had been counted before
        self.evicted: Counter[str] = Counter()  # since the start: entities, observations, texts, buckets, origins

    @classmethod
    def restored(cls, settings: SurgeSettings, states: Mapping[str, bytes], meta: bytes | None) -> Self:
        """The detector as it was when `meta` was taken; continue with any offset at or before its next one.

        Raises:
            ValueError: a record cannot be read.
        """
        detector = cls(settings)
        progress = detector._progress = decode_progress(meta)
        records = {name: decode_record(name, data, progress.next_offset) for name, data in states.items()}
        progress.epoch = 1 + max([progress.epoch, *(record.epoch for record in records.values())])
        detector._meta = encode_progress(progress)
        for name, record in records.items():
            if record.state is not None:
                detector._entities[name] = record.state
                detector._bytes += _weight(record.state)
            if record.ahead:  # what the topic holds is not what we go on from: due in the next round, changed or not
                detector._before[name] = encode_state(record.state)
            elif record.state is None:
                detector._deleted.add(name)
        for name, state in sorted(detector._entities.items(), key=lambda item: (item[1].rank, item[0])):
            if state.opening is None:
                detector._idle[name] = None
            else:
                detector._held.add(name)
        return detector

    @property
    def late(self) -> int:
        """Observations that came after their bucket had closed."""
        return self._progress.late

    @property
    def entities(self) -> int:
        """Entities remembered; at most `max_entities`."""
        return len(self._entities)

    @property
    def state_bytes(self) -> int:
        """About what the entities take in memory; at most `max_state_mib` and one entity."""
        return self._bytes

    @property
    def open_surges(self) -> int:
        """Entities in a surge."""
        openings = (self._entities[name].opening for name in self._held)
        return sum(opening is not None and opening.is_open for opening in openings)

    def observe(self, offset: int, observation: Observation) -> list[SurgeChange]:
        """Take in the observation at `offset`; an offset that was taken in before changes nothing."""
        if offset < self._progress.next_offset:
            return []
        origin = origin_of(observation["id"])
        if origin not in self._progress.clocks and len(self._progress.clocks) >= MAX_ORIGINS:
            origin = ""
            self.evicted["origins"] += 1
        place = _place_of(observation["id"]) if origin else None
        if place is not None and self._came_before(origin, place, observation["event_time_s"]):
            self._progress.next_offset = offset + 1
            self.repeated += 1
            return []
        changes = self.advance(offset, origin, observation["event_time_s"])
        clock = self._progress.clocks[origin]
        clock.last = place or clock.last
        bucket_s = self._bucket_of(observation["event_time_s"])
        if bucket_s < self._open_from_s(clock):
            self._progress.late += 1
            return changes
        state = self._admitted(observation["entity"])
        if state is None:
            self.evicted["observations"] += 1
            return changes
        state.rank = 2 * offset + 1
        before = _weight(state)
        self._add(state, bucket_s, self._open_from_s(clock), observation)
        self._bytes += _weight(state) - before
        if observation["hit"]:
            changes += self._opened(state, observation, origin, clock)
        if state.opening is None:
            self._idle.move_to_end(observation["entity"])
        self._fit(observation["entity"], state)
        return changes

    def _came_before(self, origin: str, place: tuple[int, int], event_time_s: float) -> bool:
        """Whether this is a repetition; a later time says that the source topic was made anew, and counts from 0."""
        clock = self._progress.clocks.get(origin)
        return clock is not None and place <= clock.last and event_time_s <= clock.now_s

    def advance(self, offset: int, origin: str, event_time_s: float) -> list[SurgeChange]:
        """Let the clock of a source partition reach `event_time_s`; closing buckets may resolve its surges."""
        progress = self._progress
        if offset < progress.next_offset:
            return []
        progress.next_offset = offset + 1
        clock = progress.clocks.get(origin)
        if clock is not None and event_time_s <= clock.now_s:
            return []
        if clock is None or event_time_s - clock.now_s > self._memory_s:
            # A gap longer than all we remember is an outage or a stray time, no evidence that all was quiet.
            last = clock.last if clock else (-1, -1)
            progress.clocks[origin] = clock = Clock(event_time_s, self._bucket_of(event_time_s), last)
            return self._buckets_closed(offset, origin, clock)
        was_open_from_s = self._open_from_s(clock)
        clock.now_s = event_time_s
        return [] if self._open_from_s(clock) == was_open_from_s else self._buckets_closed(offset, origin, clock)

    def changed(self) -> dict[str, bytes | None]:
        """Records of the entities changed since the last call, to be written one by one; None is a tombstone."""
        records: dict[str, bytes | None] = dict.fromkeys(sorted(self._deleted - self._before.keys()))
        self._deleted = set()
        for name, before in self._before.items():
            state = encode_state(self._entities.get(name))
            if name not in self._entities and before == b"null":
                records[name] = None
                continue
            records[name] = encode_record(self._progress, state, before)
            if name not in self._entities:
                self._deleted.add(name)
        self._before = {}
        self._meta = encode_progress(self._progress)
        return records

    def meta(self) -> bytes:
        """The progress that belongs to the last `changed()`, whatever has been observed since."""
        return self._meta

    def _open_from_s(self, clock: Clock) -> int:
        """Start of the first bucket that is not closed."""
        return self._bucket_of(clock.now_s - self._settings.lateness_s)

    def _bucket_of(self, time_s: float) -> int:
        return int(time_s // self._settings.bucket_s) * self._settings.bucket_s

    def _touch(self, name: str) -> None:
        """Call before any change to an entity: keeps the state to roll back to."""
        if name not in self._before:
            self._before[name] = encode_state(self._entities.get(name))

    def _admitted(self, name: str) -> EntityState | None:
        """The entity's state, about to change; None where there is no room as all others are in a surge."""
        if name in self._entities:
            self._touch(name)
            return self._entities[name]
        while len(self._entities) >= self._settings.max_entities or self._bytes >= self._most_bytes:
            if not self._idle:
                return None
            self._drop_oldest()
            self.evicted["entities"] += 1
        self._touch(name)
        self._idle[name] = None
        state = self._entities[name] = EntityState()
        self._bytes += _weight(state)
        return state

    def _drop_oldest(self) -> None:
        name = next(iter(self._idle))
        self._touch(name)
        self._bytes -= _weight(self._entities[name])
        del self._idle[name], self._entities[name]

    def _fit(self, name: str, state: EntityState) -> None:
        """Make room after an entity has grown."""
        while self._bytes > self._most_bytes:
            if next(iter(self._idle), name) != name:
                self._drop_oldest()
                self.evicted["entities"] += 1
            elif state.headlines:
                state.headlines.remove(min(state.headlines, key=_earliest_first))
                self._bytes -= HEADLINE_BYTES
                self.evicted["texts"] += 1
            elif len(state.counts) > 1:
                del state.counts[min(state.counts)]
                self._bytes -= BUCKET_BYTES
                self.evicted["buckets"] += 1
            else:
                return

    def _add(self, state: EntityState, bucket_s: int, open_from_s: int, observation: Observation) -> None:
        if bucket_s not in state.counts:
            kept_from_s = open_from_s - self._memory_s
            state.counts = {start: count for start, count in state.counts.items() if start >= kept_from_s}
            window_from_s = open_from_s - self._window_s
            state.headlines = [h for h in state.headlines if h["event_time_s"] >= window_from_s]
            if len(state.counts) >= MAX_BUCKETS:
                del state.counts[min(state.counts)]
                self.evicted["buckets"] += 1
        hits, total = state.counts.get(bucket_s, (0, 0))
        state.counts[bucket_s] = (hits + observation["hit"], total + 1)
        if observation["hit"]:
            state.headlines.append(
                {
                    "text": observation["text"][:MAX_TEXT_CHARS],
                    "score": observation["score"],
                    "id": observation["id"][:MAX_ID_CHARS],
                    "event_time_s": observation["event_time_s"],
                }
            )
            in_bucket = [h for h in state.headlines if self._bucket_of(h["event_time_s"]) == bucket_s]
            if len(in_bucket) > MAX_EVIDENCE:  # the best of every bucket hold the best of every window
                state.headlines.remove(max(in_bucket, key=_weakest_last))
            if len(state.headlines) > MAX_HEADLINES:
                state.headlines.remove(min(state.headlines, key=_earliest_first))

    def _opened(self, state: EntityState, observation: Observation, origin: str, clock: Clock) -> list[SurgeChange]:
        newest_s = self._bucket_of(clock.now_s)
        to_s = newest_s + self._settings.bucket_s
        from_s = to_s - self._window_s
        counts = count_window(self._settings, state.counts, from_s, to_s, clock.first_seen_s)
        opening, entity = state.opening, observation["entity"]
        if opening is not None and opening.is_open:
            state.opening = replace(opening, peak_ratio=max(opening.peak_ratio, counts["ratio"]))
            return []
        cools = opening is not None and clock.now_s < opening.opened_s + self._settings.cooldown_s
        if cools or not is_surge(self._settings, counts):
            return []
        alert_id = f"surge/{entity}/{newest_s}"  # one opening per bucket: none resolves before its bucket is closed
        state.opening = Opening(alert_id, origin, clock.now_s, newest_s, counts["ratio"], observation["release"])
        self._held.add(entity)
        self._idle.pop(entity, None)
        return [self._change("open", entity, state, clock, state.opening, counts, from_s)]

    def _buckets_closed(self, offset: int, origin: str, clock: Clock) -> list[SurgeChange]:
        """Resolve the surges that are over, end cool-downs, forget entities without a bucket left to count."""
        changes = []
        open_from_s = self._open_from_s(clock)
        from_s = open_from_s - self._window_s
        to_s = self._bucket_of(clock.now_s) + self._settings.bucket_s
        for name in sorted(self._held):
            state = self._entities[name]
            opening = state.opening
            if opening is None:
                raise AssertionError(f"{name[:80]!r} is held without a surge")
            if opening.origin != origin:
                continue
            if opening.is_open and opening.bucket_s < open_from_s:
                counts = count_window(self._settings, state.counts, from_s, to_s, clock.first_seen_s)
                if is_over(self._settings, counts):
                    self._touch(name)
                    state.rank = 2 * offset
                    state.opening = opening = replace(opening, is_open=False)
                    changes.append(self._change("resolved", name, state, clock, opening, counts, from_s))
            if not opening.is_open and clock.now_s >= opening.opened_s + self._settings.cooldown_s:
                self._touch(name)
                state.rank, state.opening = 2 * offset, None
                self._held.remove(name)
                self._idle[name] = None
        slowest_s = self._bucket_of(
            min(each.now_s for each in self._progress.clocks.values()) - self._settings.lateness_s
        )
        while self._idle and max(self._entities[next(iter(self._idle))].counts) < slowest_s - self._memory_s:
            self._drop_oldest()
        return changes

    def _change(
        self,
        to: Literal["open", "resolved"],
        entity: str,
        state: EntityState,
        clock: Clock,
        opening: Opening,
        counts: SurgeCounts,
        from_s: int,
    ) -> SurgeChange:
        evidence = sorted((h for h in state.headlines if h["event_time_s"] >= from_s), key=_weakest_last)[:MAX_EVIDENCE]
        return SurgeChange(
            alert_id=opening.alert_id,
            state=to,
            entity=entity,
            severity=severity(self._settings, opening.peak_ratio),
            event_time_s=clock.now_s,
            counts=counts,
            evidence=tuple(evidence),
            release=opening.release,
        )


def origin_of(observation_id: str) -> str:
    """The source partition an observation comes from, "topic/partition", by its id; "" for an id of another make."""
    parts = observation_id.split("/", 2)
    return "/".join(parts[:2]) if len(parts) == 3 and len(observation_id) <= MAX_ID_CHARS + 100 else ""


def _place_of(observation_id: str) -> tuple[int, int] | None:
    """The source offset and the place within its event; None for an id of another make, or of a redriven event."""
    found = _PLACE.fullmatch(observation_id)
    return (int(found[1]), int(found[2])) if found else None


def _weight(state: EntityState) -> int:
    """About what an entity takes in memory, in bytes."""
    return ENTITY_BYTES + BUCKET_BYTES * len(state.counts) + HEADLINE_BYTES * len(state.headlines)


def _earliest_first(headline: Headline) -> tuple[float, str]:
    return headline["event_time_s"], headline["id"]


def _weakest_last(headline: Headline) -> tuple[float, float, str]:
    return (-headline["score"], headline["event_time_s"], headline["id"])
