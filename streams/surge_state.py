"""The surge detector's memory in Kafka: one partition of a compacted topic, with one owner at a time.

Opening a partition's state takes it over. The broker then refuses every later write of whoever had it before: each
partition has a transactional id, `init_transactions` raises that id's epoch and ends what the older producer had begun,
and a produce or commit of an older epoch is an error that nothing mends. So what is committed to the partition is the
writes of its owners one after the other, and the newest record of a key is the last one in the log. Compaction keeps
exactly that one, and a reader that opened before it reads has seen everything its predecessors will ever have written.

A worker that was stopped for longer than the group waits, and continued, therefore cannot put an old state over a
newer one, whether compaction has dropped the newer one's predecessors or not: its next write ends it.

The embedded broker takes transactions but fences nobody; there the `precedence` of the records has to do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from streams.exits import BrokerUnavailable
from streams.publishing import BROKER_AWAY
from streams.refusals import not_allowed, who
from streams.security import librdkafka_config
from streams.settings import Settings
from streams.surge_codec import precedence

META_KEY = "meta"
ENTITY_PREFIX = "entity/"
_LONGEST_TRANSACTION_MS = 900_000  # what a broker allows unless told otherwise (transaction.max.timeout.ms)
_FENCED = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}


class Fenced(RuntimeError):
    """Another worker has taken this partition's state over."""


class SurgeState:
    """The state of one partition, owned by this process from `__init__` on, until another one opens it.

    All methods block; call them in a thread, one at a time.

    Args:
        settings: of the worker.
        partition: of the observations, and of the state.

    Raises:
        BrokerUnavailable: the broker did not hand the partition over within `worker.recovery_s`.
    """

    def __init__(self, settings: Settings, partition: int) -> None:
        broker, self._topic, self._partition = settings.broker, settings.topics.surge_state, partition
        self._group, self._who = broker.group, who(broker)
        self._config, self._recovery_s = librdkafka_config(broker), settings.worker.recovery_s
        self._limit_s = min(broker.delivery_timeout_s, _LONGEST_TRANSACTION_MS / 1000)
        self._producer = Producer(
            {
                **self._config,
                "transactional.id": f"{broker.group}.{self._topic}.{partition}",
                "transaction.timeout.ms": int(self._limit_s * 1000),
                "delivery.timeout.ms": int(self._limit_s * 1000),
                "linger.ms": 0,
                # A lost answer is then given again as it was: no record counts that may not be there (`publishing`)
                "max.in.flight.requests.per.connection": 1,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 200_000,
            },
            logger=logging.getLogger("librdkafka"),
        )
        self._await(self._producer.init_transactions, "taken over", "worker.recovery_s", self._recovery_s)

    def read(self) -> tuple[dict[str, bytes], bytes | None]:
        """The newest record of every entity, and the progress record; see `surge_codec`.

        Raises:
            AccessRefused: the group, whose right to read is used, may not be read.
            BrokerUnavailable: the end was not reached within `worker.recovery_s`.
        """
        config = self._config | {"group.id": self._group}  # one right less to give: it joins no group
        try:
            found = read_compacted(config, self._topic, self._partition, self._recovery_s)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise not_allowed(self._who, "Read", "group", self._group) from None
            raise
        meta = found.pop(META_KEY, None)
        return {key.removeprefix(ENTITY_PREFIX): value for key, value in found.items()}, meta

    def write(self, entities: Mapping[str, bytes | None], meta: bytes) -> None:
        """Write entities, then the progress, in one transaction; returns when the broker has committed it.

        Raises:
            Fenced: another worker has the partition now.
            BrokerUnavailable: not committed within `broker.delivery_timeout_s`.
        """
        try:
            self._producer.begin_transaction()
            for entity, record in entities.items():
                self._produce(ENTITY_PREFIX + entity, record)
            self._produce(META_KEY, meta)
        except KafkaException as error:
            raise self._failed("written", error.args[0]) from None
        self._await(self._producer.commit_transaction, "committed", "broker.delivery_timeout_s", self._limit_s)

    def _produce(self, key: str, value: bytes | None) -> None:
        while True:
            try:
                self._producer.produce(self._topic, value, key.encode(), self._partition)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _await(self, step: Callable[[float], Any], what: str, setting: str, limit_s: float) -> None:
        """Repeat a step of the transaction while the broker asks for patience."""
        end_s = time.monotonic() + limit_s
        while True:
            try:
                step(max(0.1, end_s - time.monotonic()))
                return
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise self._failed(what, error.args[0]) from None
                if time.monotonic() >= end_s:
                    raise self._failed(f"{what} within {setting} = {limit_s:g} s", error.args[0]) from None

    def _failed(self, what: str, error: KafkaError) -> Exception:
        where = f"surge state, {self._topic}/{self._partition}"
        if error.code() in _FENCED:
            return Fenced(
                f"{where}: another worker has taken it over, so this one was out of the group for longer than "
                "broker.session_timeout_s; nothing it wrote counts, and it starts anew"
            )
        if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return not_allowed(self._who, "Write", "transactional-id", f"{self._group}.{self._topic}.")
        if error.retriable() or error.code() in BROKER_AWAY:
            return BrokerUnavailable(f"{where}: not {what} ({error.str()})")
        return RuntimeError(f"{where}: not {what} ({error.str()}); the next worker goes on from what was committed")


def read_compacted(config: Mapping[str, object], topic: str, partition: int, deadline_s: float) -> dict[str, bytes]:
    """The latest committed value of every key of one partition, tombstones applied.

    Of two values for one key the one with the higher `precedence` counts.

    Raises:
        BrokerUnavailable: the end was not reached within the deadline.
    """
    consumer = Consumer(
        {
            "group.id": "streamgauge-state-reader",
            **config,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    found: dict[str, bytes] = {}
    read, end_s = 0, time.monotonic() + deadline_s
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])  # 0 may be gone, and then it is the end
        while time.monotonic() < end_s:
            message = consumer.poll(0.5)
            if message is None:
                continue
            if error := message.error():
                if error.code() == KafkaError._PARTITION_EOF:
                    return found
                if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
                    raise BrokerUnavailable(
                        f"topic {topic} has no partition {partition}; run: streamgauge topics create"
                    )
                if error.fatal() or not error.retriable():
                    raise KafkaException(error)
                continue
            read += 1
            _apply(found, (message.key() or b"").decode("utf-8", "replace"), message.value())
    finally:
        consumer.close()
    raise BrokerUnavailable(
        f"surge state, {topic}/{partition}: not read to its end within worker.recovery_s = {deadline_s:g} s "
        f"({read} records so far); raise it if the broker is well and the topic large"
    )


def _apply(found: dict[str, bytes], key: str, value: bytes | None) -> None:
    if value is None:
        found.pop(key, None)
    elif key not in found or precedence(value) >= precedence(found[key]):
        found[key] = value
