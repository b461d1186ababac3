"""The few records that a job of the learning loop sends: known to be acknowledged before it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from confluent_kafka import KafkaError, Message, Producer

from streams.exits import BrokerUnavailable
from streams.publishing import MAX_MESSAGE_BYTES, undelivered
from streams.security import librdkafka_config
from streams.settings import Settings

_ANSWER_S = 60.0


class Outbox:
    """Sends records, each of them once and in order."""

    def __init__(self, settings: Settings) -> None:
        self._failure: KafkaError | None = None
        self._producer = Producer(
            librdkafka_config(settings.broker)
            | {
                "enable.idempotence": True,
                "delivery.timeout.ms": int(_ANSWER_S * 1000),
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "compression.type": "zstd",
                "log_level": 0,
            }
        )

    def send(self, topic: str, key: str, value: Mapping[str, Any], at_s: float) -> None:
        """Hand a record over, of this time in seconds since 1970; `flush` says what became of it."""
        stamp_ms = int(at_s * 1000)
        self._producer.produce(
            topic, orjson.dumps(value), key.encode(), on_delivery=self._delivered, timestamp=stamp_ms
        )
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until all of them are acknowledged.

        Raises:
            BrokerUnavailable: one was not.
        """
        left = self._producer.flush(_ANSWER_S + 5)
        if left or self._failure is not None:
            why = self._failure.str() if self._failure is not None else f"{left} records without an answer"
            self._failure = None
            raise BrokerUnavailable(f"what was sent was not acknowledged: {why}")

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        self._failure = self._failure or undelivered(error, message)
