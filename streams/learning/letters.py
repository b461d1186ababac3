"""Dead letters written by a job that is no worker: acknowledged before it goes on."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import orjson
from confluent_kafka import KafkaError, Message, Producer

from streams.events import Output
from streams.exits import BrokerUnavailable
from streams.publishing import DURABLE, delivery_failure, undelivered
from streams.refusals import who
from streams.security import librdkafka_config
from streams.settings import Settings


def send_letters(settings: Settings, letters: Sequence[Output]) -> None:
    """Write dead letters; all are acknowledged when this returns.

    Raises:
        BrokerUnavailable, AccessRefused, DeliveryFailed: one was not, in time or at all.
    """
    if not letters:
        return
    topic, failures = settings.topics.dead_letters, list[KafkaError]()
    producer = Producer(
        librdkafka_config(settings.broker)
        | DURABLE
        | {"delivery.timeout.ms": int(settings.broker.delivery_timeout_s * 1000)},
        logger=logging.getLogger("librdkafka"),
    )

    def report(error: KafkaError | None, message: Message) -> None:
        if (failure := undelivered(error, message)) is not None:
            failures.append(failure)

    for letter in letters:
        value = orjson.dumps(letter.value)
        while True:
            try:
                producer.produce(topic, value, letter.key.encode(), on_delivery=report)
                break
            except BufferError:  # librdkafka's queue is full: let deliveries go on
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(settings.broker.delivery_timeout_s + 5)
    if failures:
        raise delivery_failure(failures[0], topic, who(settings.broker))
    if left:
        raise BrokerUnavailable(f"{left} dead letters were not acknowledged in time")
