"""A recorded stream back into a topic: as it was, faster, or as fast as the broker takes it.

Lines are sent as they stand, so unknown fields and even broken lines pass through. Only pacing reads a line's `ts`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.exits import BrokerUnavailable
from streams.publishing import DURABLE, MAX_MESSAGE_BYTES, undelivered
from streams.refusals import not_allowed

_QUEUED_AT_MOST = 10_000
_DELIVERY_TIMEOUT_S = 60
_LATEST_S = 253_402_300_800.0  # the year 10000, where calendars end


class ReplayError(ValueError):
    """A line that cannot be replayed; the message names file and line."""


def lines_of(path: Path, limit: int | None) -> Iterator[tuple[int, bytes]]:
    """Numbered non-empty lines of a JSON-lines file, at most `limit` of them.

    Raises ReplayError at a line that no record can hold.
    """
    sent = 0
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(MAX_MESSAGE_BYTES + 1)
            if not line or (limit is not None and sent >= limit):
                return
            if len(line) > MAX_MESSAGE_BYTES:
                raise ReplayError(f"{path}:{number}: longer than {MAX_MESSAGE_BYTES} bytes; is it a JSON-lines file?")
            if line.strip():
                sent += 1
                yield number, line.rstrip(b"\r\n")


def event_time_s(line: bytes, where: str) -> float:
    """The `ts` of a line, in seconds since 1970.

    Raises:
        ReplayError: no usable `ts`; replay with `--speed max` to send the line anyhow.
    """
    try:
        found = orjson.loads(line)["ts"]
        if isinstance(found, (int, float)) and not isinstance(found, bool) and abs(found) < _LATEST_S:
            return float(found)
        moment = datetime.fromisoformat(found)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError):
        raise ReplayError(f"{where}: no usable ts (ISO 8601 or seconds); --speed max does without") from None


def key_of(line: bytes, path: str | None) -> bytes | None:
    """The message key found at a dotted path; a list gives its first element; None where there is none."""
    if path is None:
        return None
    try:
        node: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    node = node[0] if isinstance(node, list) and node else node
    return str(node).encode("utf-8") if isinstance(node, (str, int)) else None


class Pace:
    """When to send a line: event-time distances divided by `speed`; no waiting when speed is None."""

    def __init__(
        self,
        speed: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._speed = speed
        self._clock = clock
        self._sleep = sleep
        self._start: tuple[float, float] | None = None  # (event time, clock) of the first line

    def wait(self, line: bytes, where: str) -> None:
        """Sleep until the line's turn has come. Lines out of order go at once."""
        if self._speed is None:
            return
        at_s = event_time_s(line, where)
        if self._start is None:
            self._start = (at_s, self._clock())
        due_s = self._start[1] + (at_s - self._start[0]) / self._speed
        if (ahead_s := due_s - self._clock()) > 0:
            self._sleep(ahead_s)


def replay(
    path: Path,
    topic: str,
    config: Mapping[str, Any],
    *,
    pace: Pace,
    key_path: str | None = None,
    limit: int | None = None,
    on_sent: Callable[[int], None] = lambda bytes_sent: None,
) -> int:
    """Send a file's lines to a topic, never holding more than a bounded number unacknowledged.

    Returns:
        How many records the broker has acknowledged.

    Raises:
        ReplayError: a line has no usable time, or the broker refused one.
        AccessRefused: this client may not write the topic.
        BrokerUnavailable: records were not acknowledged in time.
    """
    acknowledged = 0
    failure: KafkaError | None = None

    def report(error: KafkaError | None, message: Message) -> None:
        nonlocal acknowledged, failure
        missing = undelivered(error, message)
        failure = failure or missing
        acknowledged += missing is None

    producer = Producer(
        {
            **config,
            **DURABLE,
            "linger.ms": 5,
            "delivery.timeout.ms": _DELIVERY_TIMEOUT_S * 1000,
        }
    )
    try:
        for number, line in lines_of(path, limit):
            pace.wait(line, f"{path}:{number}")
            while len(producer) >= _QUEUED_AT_MOST and failure is None:
                producer.poll(0.1)
            if failure is not None:
                break
            _produce(producer, topic, line, key_of(line, key_path), report, f"{path}:{number}")
            on_sent(len(line))
    finally:  # what was queued before a bad line is sent all the same
        left = producer.flush(_DELIVERY_TIMEOUT_S)
    if failure is not None:
        if failure.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise not_allowed("this client", "Write", "topic", topic)
        if failure.code() in (KafkaError._MSG_TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
            raise BrokerUnavailable(f"topic {topic}: the broker did not acknowledge in time: {failure.str()}")
        raise ReplayError(f"topic {topic}: the broker refused a record of {path}: {failure.str()}")
    if left:
        raise BrokerUnavailable(f"topic {topic}: {left} records of {path} were not acknowledged in time")
    return acknowledged


def _produce(producer: Producer, topic: str, line: bytes, key: bytes | None, report: Any, where: str) -> None:
    while True:
        try:
            producer.produce(topic, line, key, on_delivery=report)
            producer.poll(0)
            return
        except BufferError:  # the queue's bytes are used up before its count
            producer.poll(0.1)
        except KafkaException as error:
            raise ReplayError(f"{where}: cannot be sent to topic {topic}: {error.args[0].str()}") from None
