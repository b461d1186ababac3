"""One task's part of what is collected: statements onto the newest version of its data set, and the one after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from models.errors import ReleaseNotFound
from models.learning.opinions import REFUSED, Opinion, Position, Statement, fold
from models.learning.store import Contents, DatasetStore, ReadUpTo, VersionManifest, Waiting
from models.releases import find_release, read_manifest
from models.tasks import load_task
from streams.intake import Record
from streams.learning.feedback import Heard, KafkaRecord
from streams.learning.joining import Joined, NotYet, Refused
from streams.settings import Settings

MOST_WAITING = 10_000  # records of a task that wait for their event at once


class Taken(NamedTuple):
    """A record that was understood, what came of looking for its text, and since when that is done (seconds since
    1970)."""

    heard: Heard
    joined: Joined
    since_s: float


class Turned(NamedTuple):
    """A record that is refused and becomes a dead letter: as what it is counted, and why, for a person."""

    record: Record
    end: str
    why: str


class TaskIntake:
    """What is known of a task while its feedback is collected.

    Args:
        settings: bounds, and which release and task file say what the labels are.
        task: its name.
        folder: of all tasks' data sets.

    Raises:
        IntegrityError: its newest version is damaged.
    """

    def __init__(self, settings: Settings, task: str, folder: Path) -> None:
        self._settings = settings
        self._task = task
        self._store = DatasetStore(task, folder)
        self.head: VersionManifest | None = self._store.head()
        self._contents = self._store.contents(self.head.version) if self.head else Contents({})
        self.ends = Counter[str]()  # of what the next version will hold
        self._changed = False
        said = (one.said for one in self._contents.ledger.values())
        self._by_key = {one.key: one for one in said if isinstance(one, Opinion)}

    @cached_property
    def labels(self) -> frozenset[str]:
        """The labels there are: those of the release that serves the task, and those its task file names.

        A new label begins in the task file. Raises ReleaseNotFound when there is neither.
        """
        models = self._settings.models
        named = frozenset(load_task(str(models.tasks.get(self._task, self._task))).labels)
        try:
            release = find_release(self._task, models.releases.get(self._task))
        except ReleaseNotFound:
            if not named:
                raise
            return named
        return named | frozenset(read_manifest(release).head(self._task).labels)

    def labelled(self, key: str) -> Opinion | None:
        """An opinion on a text that somebody has labelled."""
        return self._by_key.get(key)

    def has(self, topic: str, topic_id: str, at: Position) -> bool:
        """Whether a record of the feedback topic is in its newest version."""
        return self.head is not None and at.offset < self.head.feedback.start(topic, topic_id, at.partition)

    def waiting(self, topic: str) -> list[tuple[KafkaRecord, float]]:
        """The records that wait for their event, and since when."""
        return [
            (KafkaRecord(topic, *one.at, one.timestamp_ms, one.key, one.value, one.headers), one.since_s)
            for one in self._contents.waiting
        ]

    def absorb(self, taken: Collection[Taken], turned: Iterable[Turned], now_s: float) -> list[Turned]:
        """Take in all that is new and all that was waiting; returns what becomes dead letters.

        Args:
            taken: the records that were understood.
            turned: those that were waiting, and are refused now.
            now_s: the wall clock.
        """
        refused, waiting, said = list(turned), list[Waiting](), list[tuple[Heard, Statement]]()
        for heard, joined, since_s in taken:
            if isinstance(joined, Statement):
                said.append((heard, joined))
            elif isinstance(joined, Refused):
                refused.append(Turned(heard.record, *joined))
            elif why := self._impatience(joined, since_s, now_s, len(waiting)):
                refused.append(Turned(heard.record, "unknown_event", why))
            else:
                record = heard.record
                waiting.append(
                    Waiting(heard.at, since_s, record.timestamp, record.key, record.value, tuple(record.headers))
                )
        folded = fold(
            self._contents.ledger,
            [statement for _, statement in said],
            self.labels if said else (),
            self._settings.feedback.max_opinions,
        )
        for (heard, statement), end in zip(said, folded.ends, strict=True):
            if end in REFUSED:
                refused.append(Turned(heard.record, end, self._words(end, heard)))
            else:
                self.ends[end] += 1
                if isinstance(statement.said, Opinion):
                    self._by_key.setdefault(statement.said.key, statement.said)
        self.ends.update(one.end for one in refused)
        self._changed |= bool(said or refused) or tuple(waiting) != self._contents.waiting
        self._contents = Contents(folded.ledger, tuple(waiting))
        return refused

    def _impatience(self, joined: NotYet, since_s: float, now_s: float, waiting: int) -> str:
        """Why a record waits no longer; empty while it does."""
        limit_s = self._settings.feedback.wait_s
        if now_s - since_s >= limit_s:
            return f"{joined.why}, {now_s - since_s:.0f} s after it was asked for (feedback.wait_s = {limit_s:g})"
        return f"{joined.why}, and {waiting} records are waiting already" if waiting >= MOST_WAITING else ""

    def _words(self, end: str, heard: Heard) -> str:
        if end == "no_room":
            return f"the task has feedback.max_opinions = {self._settings.feedback.max_opinions} opinions"
        there = ", ".join(sorted(self.labels))
        new = "a new one begins in the task's file, which [models.tasks] names"
        return f"task {heard.task!r} has no label {heard.label!r}; there are: {there:.600}; {new}"

    def write(self, feedback: ReadUpTo, now_s: float) -> VersionManifest | None:
        """The version that holds what was taken in, durable when this returns; None when nothing was."""
        if not self._changed:
            return None
        self.head = self._store.add(self._contents, self.ends, feedback, datetime.fromtimestamp(now_s, UTC))
        self.ends.clear()
        self._changed = False
        self._store.prune(self._settings.feedback.keep_versions)
        return self.head
