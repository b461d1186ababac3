"""How many events each release has scored, and how many became dead letters by it, minute by minute.

topic predictions + topic dead-letters (stage scoring) -> events of a task by release and minute
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import orjson
from confluent_kafka import Message

from streams.learning.catching_up import CatchingUp
from streams.settings import Settings

MOST_PREDICTIONS, MOST_LETTERS = 100_000, 10_000  # of a partition that are read at once
MINUTE_S = 60

_Minute = tuple[str, str, int]  # task, release, minutes since 1970


class Failures(NamedTuple):
    """Events of one release: those it failed on, and all."""

    dead: int
    events: int

    @property
    def share(self) -> float:
        """Of the events that it failed on; 0 when there were none."""
        return self.dead / self.events if self.events else 0.0


class FailureCounts:
    """Counts; each time it reads what has come since.

    Args:
        settings: the broker, the topics, the sources.
        keep_s: how long a minute counts.
    """

    def __init__(self, settings: Settings, keep_s: float) -> None:
        group, topics = f"{settings.broker.group}-judge", settings.topics
        self._keep_s = keep_s
        self._tasks = {name: source.tasks for name, source in settings.active_sources.items()}
        self._predictions = CatchingUp(settings, topics.predictions, group, MOST_PREDICTIONS)
        self._letters = CatchingUp(settings, topics.dead_letters, group, MOST_LETTERS)
        self._scored: Counter[_Minute] = Counter()
        self._dead: dict[_Minute, set[str]] = defaultdict(set)  # their ids: a letter may come twice
        self._since: int | None = None  # the minute of the first prediction that was read

    def read(self, now_s: float) -> None:
        """Take in what has come. Raises BrokerUnavailable."""
        for message in self._predictions.new():
            self._prediction(message)
        for message in self._letters.new():
            self._letter(message)
        oldest = (now_s - self._keep_s) // MINUTE_S
        self._scored = Counter({key: count for key, count in self._scored.items() if key[2] >= oldest})
        for key in [key for key in self._dead if key[2] < oldest]:
            del self._dead[key]

    def between(self, task: str, release: str, from_s: float, to_s: float) -> Failures:
        """What a release did at a task from one moment to another, to the minute, as far as it was read."""
        if self._since is None:
            return Failures(0, 0)
        first, last = max(self._since, int(from_s // MINUTE_S)), int(to_s // MINUTE_S)
        dead = sum(
            len(ids) for key, ids in self._dead.items() if key[:2] == (task, release) and first <= key[2] <= last
        )
        scored = sum(n for key, n in self._scored.items() if key[:2] == (task, release) and first <= key[2] <= last)
        return Failures(dead, dead + scored)

    def _prediction(self, message: Message) -> None:
        said, minute = _object(message), _minute(message)
        task, release = said.get("task"), said.get("release")
        if isinstance(task, str) and isinstance(release, str):
            self._scored[task, release, minute] += 1
            self._since = minute if self._since is None else min(self._since, minute)

    def _letter(self, message: Message) -> None:
        said, minute = _object(message), _minute(message)
        source, release, its_id = said.get("source"), said.get("release"), said.get("id")
        if said.get("stage") != "scoring" or not isinstance(release, str) or not isinstance(its_id, str):
            return
        name = source.get("name") if isinstance(source, dict) else None
        for task in self._tasks.get(name, ()) if isinstance(name, str) else ():
            self._dead[task, release, minute].add(its_id)


def _minute(message: Message) -> int:
    return message.timestamp()[1] // 1000 // MINUTE_S


def _object(message: Message) -> dict[str, Any]:
    """A record's JSON object; empty when it is none."""
    value: Any = message.value()
    try:
        said = orjson.loads(value or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}
