"""Quix Streams, batched by a sink of its own.

After https://quix.io/docs/quix-streams/connectors/sinks/custom-sinks.html: a subclass of `BaseSink` gathers records in
`add` and writes them in `flush`, which a checkpoint calls before it commits; `commit_every` and `commit_interval` bound
the batch. (`BatchingSink` would cut it by partition; a count window keeps events in RocksDB and has no time bound.)
Outputs go through `Application.get_producer`, as .../producer-consumer-lowlevel.html shows.
"""

from __future__ import annotations

from typing import Any

import orjson
from quixstreams import Application
from quixstreams.sinks.base import BaseSink

from streams.bench.job import Job
from streams.bench.systems.common import At, Event, checked, open_scorer, predictions


class ScoringSink(BaseSink):  # type: ignore[misc]  # its types are not looked at
    """Scores what a checkpoint holds, and publishes it."""

    def __init__(self, job: Job, app: Application) -> None:
        super().__init__()
        self._job, self._app = job, app
        self._scorer = open_scorer(job)
        self._events: list[Event] = []
        self._places: list[At] = []
        self._keys: list[Any] = []

    def setup(self) -> None:
        """Open the producer."""
        self._producer = self._app.get_producer()

    def add(self, value: Any, key: Any, timestamp: int, headers: Any, topic: str, partition: int, offset: int) -> None:
        """Gather one record."""
        self._events.append(checked(value))
        self._places.append(At(topic, partition, offset))
        self._keys.append(key)

    def flush(self) -> None:
        """Score and publish; returns when all is acknowledged."""
        events, places, keys = self._events, self._places, self._keys
        self._events, self._places, self._keys = [], [], []
        if events:
            for key, one in zip(keys, predictions(self._job, self._scorer, events, places), strict=True):
                self._producer.produce(self._job.output_topic, orjson.dumps(one), key)
            self._producer.flush()


def build(job: Job) -> Application:
    """The application with its one dataframe."""
    app = Application(
        broker_address=job.bootstrap,
        consumer_group=job.group,
        auto_offset_reset="earliest",
        commit_every=job.batch_events,
        commit_interval=job.batch_wait_ms / 1000,
        consumer_poll_timeout=job.batch_wait_ms / 1000,
        auto_create_topics=False,
        state_dir=job.directory,
        loglevel="WARNING",
    )
    source = app.topic(job.input_topic, value_deserializer="json", key_deserializer="bytes")
    app.dataframe(source).sink(ScoringSink(job, app))
    return app


if __name__ == "__main__":
    build(Job.from_command_line()).run()
