"""What each release scored and failed on, counted from the topics by release and minute."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from confluent_kafka import Producer

from streams.embedded import EmbeddedBroker
from streams.learning.failure_counts import FailureCounts, Failures
from streams.settings import Settings

NOON_S = 1_795_000_020.0 // 60 * 60


class Outputs:
    """Predictions and dead letters as workers write them, at times that the test sets."""

    def __init__(self, settings: Settings) -> None:
        self.names = settings.topics
        self._producer = Producer({"bootstrap.servers": settings.broker.bootstrap})
        for name in (self.names.predictions, self.names.dead_letters):
            self._producer.list_topics(name, 10)
        self._count = 0

    def send(self, topic: str, value: object, at_s: float) -> None:
        data = value if isinstance(value, bytes) else orjson.dumps(value)
        self._producer.produce(topic, data, timestamp=int(at_s * 1000))

    def scored(self, release: str, count: int, at_s: float, task: str = "risk") -> None:
        for _ in range(count):
            self.send(self.names.predictions, {"task": task, "release": release}, at_s)
        assert self._producer.flush(20) == 0

    def dead(self, release: str | None, count: int, at_s: float, stage: str = "scoring", times: int = 1) -> None:
        for _ in range(count):
            self._count += 1
            letter = {
                "id": f"transactions/0/{self._count}/dead-letter", "release": release, "stage": stage,
                "source": {"name": "transactions"},
            }  # fmt: skip
            for _ in range(times):
                self.send(self.names.dead_letters, letter, at_s)
        assert self._producer.flush(20) == 0


def test_events_and_failures_are_told_apart_by_release_task_and_time(
    embedded: EmbeddedBroker, settings_at: Callable[..., Settings]
) -> None:
    settings = settings_at(embedded.bootstrap)
    outputs, counts = Outputs(settings), FailureCounts(settings, keep_s=7200)
    outputs.scored("old", 90, NOON_S - 600)
    outputs.dead("old", 10, NOON_S - 600, times=2)  # a letter may come twice
    outputs.dead("old", 7, NOON_S - 600, stage="intake")
    outputs.scored("new", 40, NOON_S + 60)
    outputs.scored("new", 40, NOON_S + 60, task="tone")
    outputs.send(outputs.names.predictions, b"\xff", NOON_S)
    outputs.send(outputs.names.dead_letters, b"[]", NOON_S)
    counts.read(NOON_S + 60)
    assert counts.between("risk", "old", NOON_S - 3600, NOON_S) == Failures(10, 100)
    assert counts.between("risk", "old", NOON_S, NOON_S + 60) == Failures(0, 0)
    assert counts.between("risk", "new", NOON_S, NOON_S + 60) == Failures(0, 40)
    outputs.dead("new", 10, NOON_S + 120)
    counts.read(NOON_S + 120)
    assert counts.between("risk", "new", NOON_S, NOON_S + 120) == Failures(10, 50)
    counts.read(NOON_S + 7200)
    assert counts.between("risk", "old", NOON_S - 3600, NOON_S) == Failures(0, 0), "too long ago to be kept"


def test_letters_from_before_the_first_prediction_that_was_read_do_not_count(
    embedded: EmbeddedBroker, settings_at: Callable[..., Settings]
) -> None:
    """There would be nothing to divide them by."""
    settings = settings_at(embedded.bootstrap)
    outputs, counts = Outputs(settings), FailureCounts(settings, keep_s=7200)
    outputs.dead("new", 10, NOON_S)
    counts.read(NOON_S)
    assert counts.between("risk", "new", NOON_S - 60, NOON_S) == Failures(0, 0)
    outputs.scored("new", 50, NOON_S + 600)
    counts.read(NOON_S + 600)
    assert counts.between("risk", "new", NOON_S - 60, NOON_S + 600) == Failures(0, 50)
