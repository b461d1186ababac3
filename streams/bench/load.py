"""Puts events onto the input topic: all at once, or each at its time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, Message, Producer

_FLUSH_S = 120.0


class LoadFailed(RuntimeError):
    """The broker did not take the events."""


class Loader:
    """A producer for one input topic, which spreads the events evenly over its partitions."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._topic, self._partitions = topic, partitions
        self._sent = 0
        self._error: KafkaError | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "linger.ms": 1,
                "queue.buffering.max.messages": 2_000_000,
                "queue.buffering.max.kbytes": 1 << 20,
                "on_delivery": self._delivered,
                "log_level": 0,  # the embedded broker may go before this does
            }
        )

    def fill(self, values: Sequence[bytes]) -> None:
        """Send all at once; returns when the broker has them all. Raises LoadFailed."""
        for value in values:
            self._send(value, 0)
            if self._sent % 1000 == 0:
                self._producer.poll(0)
        self._flush()

    def pace(self, values: Sequence[bytes], due_s: Sequence[float]) -> list[int]:
        """Send each value at its time in seconds from now; returns these times in milliseconds since 1970.

        The record's time stamp is when it was due: should the loader be late, that is part of the latency.
        Raises LoadFailed.
        """
        started_s, wall_s = time.monotonic(), time.time()
        due_ms = [int((wall_s + at_s) * 1000) for at_s in due_s]
        for value, at_s, stamp_ms in zip(values, due_s, due_ms, strict=True):
            if (ahead_s := started_s + at_s - time.monotonic()) > 0:
                time.sleep(ahead_s)
            self._send(value, stamp_ms)
            self._producer.poll(0)
        self._flush()
        return due_ms

    def _send(self, value: bytes, stamp_ms: int) -> None:
        key = b"v%d" % (self._sent % 997)
        self._producer.produce(self._topic, value, key, partition=self._sent % self._partitions, timestamp=stamp_ms)
        self._sent += 1

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        self._error = self._error or error

    def _flush(self) -> None:
        left = self._producer.flush(_FLUSH_S)
        if left or self._error:
            why = self._error.str() if self._error else f"{left} events were not taken in {_FLUSH_S:g} s"
            raise LoadFailed(f"the broker did not take the events of {self._topic}: {why}")
