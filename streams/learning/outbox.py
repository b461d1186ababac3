"""The few records that a job which is no worker sends: known to be acknowledged before it goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.events import Output
from streams.exits import BrokerUnavailable
from streams.publishing import DURABLE, delivery_failure, undelivered
from streams.refusals import who
from streams.security import librdkafka_config
from streams.settings import Settings


class Outbox:
    """Sends records, each of them once and in order."""

    def __init__(self, settings: Settings) -> None:
        self._who = who(settings.broker)
        self._timeout_s = settings.broker.delivery_timeout_s
        self._failure: Exception | None = None
        self._producer = Producer(
            librdkafka_config(settings.broker) | DURABLE | {"delivery.timeout.ms": int(self._timeout_s * 1000)},
            logger=logging.getLogger("librdkafka"),
        )

    def send(self, topic: str, key: str, value: Mapping[str, Any] | bytes | None, at_s: float | None = None) -> None:
        """Hand a record over, of this time in seconds since 1970, else of now; `flush` says what became of it.

        A record without a value ends what its key stood for, where a topic is compacted; bytes are sent as they are.
        """
        data = value if isinstance(value, bytes | None) else orjson.dumps(value)
        stamp_ms = int((at_s or 0) * 1000)  # 0: now
        while self._failure is None:
            try:
                self._producer.produce(topic, data, key.encode(), on_delivery=self._delivered, timestamp=stamp_ms)
                break
            except BufferError:  # librdkafka's queue is full: let deliveries go on
                self._producer.poll(0.1)
            except KafkaException as error:  # known before it is even queued
                self._failure = delivery_failure(error.args[0], topic, self._who)
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until all of them are acknowledged.

        Raises:
            BrokerUnavailable, AccessRefused, DeliveryFailed: one was not, in time or at all.
        """
        left = self._producer.flush(self._timeout_s + 5)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if left:
            raise BrokerUnavailable(f"{left} records were not acknowledged in time")

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        failure = undelivered(error, message)
        if failure is not None and self._failure is None:
            self._failure = delivery_failure(failure, str(message.topic()), self._who)


def send_letters(settings: Settings, letters: Sequence[Output]) -> None:
    """Write dead letters; all are acknowledged when this returns. Raises what `Outbox.flush` raises."""
    if not letters:
        return
    outbox = Outbox(settings)
    for letter in letters:
        outbox.send(settings.topics.dead_letters, letter.key, letter.value)
    outbox.flush()
