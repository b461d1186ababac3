"""Which event a prediction was of, and what it said: the newest predictions, in a SQLite file.

A cache of the topic `predictions`, bounded in rows and age. How far the topic was read is written in the same
transaction as the rows, so the file is right wherever a process ends. One that is damaged is made anew.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import orjson
from confluent_kafka import Message

from models.learning.store import ReadUpTo
from streams.events import Coordinates
from streams.intake import BadInput, seconds_of

log = logging.getLogger(__name__)

MAX_PREDICTION_BYTES = 256 << 10  # a larger one is none

_SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
    place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, task TEXT NOT NULL, event_id TEXT NOT NULL,
    topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    label TEXT NOT NULL, score REAL NOT NULL, release TEXT NOT NULL, scored_at_s REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS by_event ON predictions (task, event_id);
CREATE TABLE IF NOT EXISTS progress (read TEXT NOT NULL);
"""
_FORGET_BEYOND = "DELETE FROM predictions WHERE place <= (SELECT max(place) FROM predictions) - ?"
_FORGET_BEFORE = """
DELETE FROM predictions WHERE place < coalesce(
    (SELECT place FROM predictions WHERE scored_at_s >= ? ORDER BY place LIMIT 1),
    (SELECT max(place) + 1 FROM predictions)
)
"""
_BY_EVENT = "SELECT *, min(place) FROM predictions WHERE task = ? AND event_id = ? GROUP BY topic"


class Known(NamedTuple):
    """A prediction that was published: of which event, where that lies, and what was served for it."""

    id: str
    task: str
    event_id: str
    at: Coordinates
    label: str
    score: float
    release: str
    scored_at_s: float

    @property
    def identity(self) -> str:
        """What the ids of the event's outputs begin with."""
        return self.id.removesuffix(f"/{self.task}")


class PredictionIndex:
    """The newest predictions, by their id and by that of their event.

    Args:
        path: the file; made when it is not there.
        most: predictions to remember.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._most = most
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = _opened(path)
        except sqlite3.DatabaseError as error:
            log.warning("%s: %s; made anew from the topic of predictions", path, error)
            for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
                name.unlink(missing_ok=True)
            self._file = _opened(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()

    def read_up_to(self) -> ReadUpTo | None:
        """How far the topic was read; None: not at all."""
        row = self._file.execute("SELECT read FROM progress").fetchone()
        return ReadUpTo.model_validate_json(row[0]) if row else None

    def remember(self, predictions: Iterable[Known], read: ReadUpTo) -> None:
        """Remember predictions, and that the topic was read so far. Of one that comes again the first stays: it is the
        one that consumers acted upon."""
        with self._file:
            self._file.executemany(
                "INSERT OR IGNORE INTO predictions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((one.id, one.task, one.event_id, *one.at, *one[4:]) for one in predictions),
            )
            self._file.execute(_FORGET_BEYOND, [self._most])
            self._file.execute("DELETE FROM progress")
            self._file.execute("INSERT INTO progress VALUES (?)", [read.model_dump_json()])

    def forget_before(self, time_s: float) -> None:
        """Forget what was scored before then; the events themselves are not kept for longer."""
        with self._file:
            self._file.execute(_FORGET_BEFORE, [time_s])

    def by_id(self, prediction_id: str) -> Known | None:
        """The prediction of this id."""
        row = self._file.execute("SELECT * FROM predictions WHERE id = ?", [prediction_id]).fetchone()
        return _known(row) if row else None

    def by_event(self, task: str, event_id: str) -> list[Known]:
        """The first prediction of the task in each topic that has an event of this id."""
        return [_known(row) for row in self._file.execute(_BY_EVENT, [task, event_id])]

    def __len__(self) -> int:
        (count,) = self._file.execute("SELECT count(*) FROM predictions").fetchone()
        return int(count)


def _opened(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path)
    try:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes is read again
        file.executescript(_SCHEMA)
    except sqlite3.DatabaseError:
        file.close()
        raise
    return file


def _known(row: tuple[Any, ...]) -> Known:
    _, prediction_id, task, event_id, topic, partition, offset, label, score, release, scored_at_s = row[:11]
    return Known(
        prediction_id, task, event_id, Coordinates(topic, partition, offset), label, score, release, scored_at_s
    )


def prediction_of(message: Message) -> Known | None:
    """A record of the topic of predictions; None when no worker has written it."""
    value: Any = message.value()
    if not value or len(value) > MAX_PREDICTION_BYTES:
        return None
    try:
        said: Mapping[str, Any] = orjson.loads(value)
        source = said["source"]
        at = Coordinates(str(source["topic"]), int(source["partition"]), int(source["offset"]))
        scored_at_s = seconds_of(said["scored_at"], "scored_at")
        names = (str(said["id"]), str(said["task"]), str(said["event_id"]))
        return Known(*names, at, str(said["label"]), float(said["score"]), str(said["release"]), scored_at_s)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError, BadInput):
        return None
