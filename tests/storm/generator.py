"""Writes the oracle, then sends the storm's events: numbered, paced, and never further than it may.

Two files: the oracle says of every number what must become of it, before anything is sent; the coordinates, one line
for each acknowledged event, say where it lies.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from confluent_kafka import KafkaError, Message, Producer

from tests.storm.events import NUMBER_HEADER, POISON, expected_outputs, key_of, source_of, value_of
from tests.storm.patience import Patience
from tests.storm.plan import Plan
from tests.whereabouts import SURE

FLUSH_S = 300.0


def oracle_rows(plan: Plan) -> Iterator[dict[str, Any]]:
    """What must become of each event, in the order of their numbers."""
    for number in range(plan.events):
        kind = plan.poison.get(number)
        row: dict[str, Any] = {"n": number, "topic": source_of(number), "key": key_of(number)}
        if kind is None:
            row["outputs"] = expected_outputs(number)
        else:
            value = value_of(number, kind)
            encoded = None if value is None else base64.b64encode(value).decode("ascii")
            row |= {"poison": kind, "verdict": POISON[kind][1], "value_base64": encoded}
        yield row


def write_oracle(plan: Plan, file: Path) -> None:
    """One JSON line for each event."""
    with file.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in oracle_rows(plan))


class Generator(threading.Thread):
    """Sends the events of a plan at a rate, as far as `allow` lets it."""

    def __init__(self, bootstrap: str, plan: Plan, topics: Mapping[str, str], rate: float, coordinates: Path) -> None:
        """`topics` by source; `rate` in events a second; `coordinates` is the file to write."""
        super().__init__(daemon=True, name="generator")
        self._plan, self._topics, self._rate, self._file = plan, topics, rate, coordinates
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap, **SURE, "linger.ms": 5, "log_level": 0,
                "message.timeout.ms": 0, "reconnect.backoff.max.ms": 1000,
            }
        )  # fmt: skip
        self._allowed = 0
        self._more = threading.Condition()
        self._stopping = False
        self.sent = 0
        self.failed: str | None = None

    def allow(self, events: int) -> None:
        """Let it send so many events in all."""
        with self._more:
            self._allowed = events
            self._more.notify_all()

    def stop(self) -> None:
        """Send nothing more."""
        with self._more:
            self._stopping = True
            self._more.notify_all()

    def run(self) -> None:
        """Send; afterwards every event is acknowledged, or `failed` says why not."""
        try:
            with self._file.open("w", encoding="utf-8") as file:
                self._send(file)
                left, patience = self._producer.flush(1), Patience(FLUSH_S)
                while left and not patience.over:
                    left = self._producer.flush(1)
            if left:
                self.failed = f"{left} events were not acknowledged within {FLUSH_S:g} s"
        except Exception as error:
            self.failed = f"{type(error).__name__}: {error}"

    def _send(self, file: TextIO) -> None:
        due_s = time.monotonic()
        for number in range(self._plan.events):
            if not self._wait_for(number):
                return
            now_s = time.monotonic()
            due_s = max(due_s, now_s - 0.1) + 1 / self._rate
            if due_s > now_s:
                self._producer.poll(due_s - now_s)
            self._produce(number, file)
            self.sent = number + 1

    def _wait_for(self, number: int) -> bool:
        """Whether this event may be sent, after waiting for it."""
        while True:
            with self._more:
                if self._stopping or number < self._allowed:
                    return not self._stopping
                self._more.wait(0.05)
            self._producer.poll(0)

    def _produce(self, number: int, file: TextIO) -> None:
        source = source_of(number)
        while True:
            try:
                self._producer.produce(
                    self._topics[source],
                    value_of(number, self._plan.poison.get(number)),
                    key_of(number).encode(),
                    headers=[(NUMBER_HEADER, str(number).encode())],
                    on_delivery=self._reporter(number, file),
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def _reporter(self, number: int, file: TextIO) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.failed = f"event {number} was not acknowledged: {error.str()}"
                return
            file.write(f"{number} {message.topic()} {message.partition()} {message.offset()}\n")

        return report
