"""Outputs to Kafka: serialised once, batched by librdkafka, and known to be acknowledged before anything is committed.

One idempotent producer with `acks=all` for the process. A thread serves delivery reports; `send` returns a future that
resolves when the broker has acknowledged every record of the call, and fails when one of them could not be delivered.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.events import Output, OutputName
from streams.exits import BrokerUnavailable

MAX_MESSAGE_BYTES = 8 * 1024 * 1024  # the largest event (5 MB) in base64, its headers and the reason
_POLL_S = 0.1
_BROKER_AWAY = {
    KafkaError._MSG_TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT,
    KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
}  # fmt: skip


class DeliveryFailed(RuntimeError):
    """The broker refused an output; the message names the topic."""


class _Delivery:
    """Counts down the acknowledgements of one call; used on the polling thread only."""

    def __init__(self, count: int, future: asyncio.Future[None]) -> None:
        self._missing = count
        self._future = future
        self._error: Exception | None = None

    def report(self, error: KafkaError | None, message: Message) -> None:
        self._missing -= 1
        if error is not None and self._error is None:
            kind = BrokerUnavailable if error.code() in _BROKER_AWAY else DeliveryFailed
            self._error = kind(f"output to topic {message.topic()!r} was not acknowledged: {error.str()}")
        if not self._missing:
            self._future.get_loop().call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if self._future.done():
            return
        if self._error is None:
            self._future.set_result(None)
        else:
            self._future.set_exception(self._error)


class Publisher:
    """Sends records and says when they are safe.

    Args:
        config: librdkafka's connection settings (see `security`).
        topics: the topic of each output.
        delivery_timeout_s: after so long without acknowledgement a record has failed.
    """

    def __init__(
        self, config: Mapping[str, Any], topics: Mapping[OutputName, str], delivery_timeout_s: float
    ) -> None:
        self._topics = dict(topics)
        self._producer = Producer(
            {
                **config,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 2,
                "compression.type": "none",
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "delivery.timeout.ms": int(delivery_timeout_s * 1000),
                "queue.buffering.max.messages": 200_000,
            },
            logger=logging.getLogger("librdkafka"),
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="publisher", daemon=True)
        self._thread.start()

    async def send(self, outputs: Sequence[Output]) -> asyncio.Future[None]:
        """Hand over outputs in order; the future resolves when all are acknowledged.

        The future fails with `BrokerUnavailable` (not in time) or `DeliveryFailed` (refused).
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not outputs:
            future.set_result(None)
            return future
        delivery = _Delivery(len(outputs), future)
        queued = 0
        while (queued := self._produce(outputs, queued, delivery)) < len(outputs):
            await asyncio.sleep(0.01)  # librdkafka's queue is full: let deliveries go on
        return future

    def _produce(self, outputs: Sequence[Output], first: int, delivery: _Delivery) -> int:
        """Queue outputs from the first on; returns how far it came before librdkafka's queue was full."""
        produce, report, topics = self._producer.produce, delivery.report, self._topics
        for index in range(first, len(outputs)):
            name, key, value, partition = outputs[index]
            data = value if isinstance(value, bytes | None) else orjson.dumps(value)
            try:
                produce(topics[name], data, key.encode(), partition, report)
            except BufferError:
                return index
            except KafkaException as error:
                raise DeliveryFailed(f"output to topic {topics[name]!r} was refused: {error.args[0].str()}") from None
        return len(outputs)

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(_POLL_S)

    def close(self, timeout_s: float) -> int:
        """Deliver what is queued, for at most `timeout_s`; returns how many records are left."""
        left: int = self._producer.flush(timeout_s)
        self._closing.set()
        self._thread.join(timeout=2 * _POLL_S + 1)
        return left
