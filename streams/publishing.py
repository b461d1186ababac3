"""Outputs to Kafka: serialised once, batched by librdkafka, and known to be acknowledged before anything is committed.

One idempotent producer with `acks=all` for the process. `send` returns a future that resolves when the broker has
acknowledged every record of the call, and fails when one of them could not be delivered. Delivery reports are fetched
by the event loop: a thread of their own would take the interpreter's lock from it once for every record.

An acknowledgement that names no offset is none. After a lost answer librdkafka sends again, takes "I have had this
sequence number" for a success, and then the record may be there or not (seen on a busy broker; librdkafka's issue 4134
tells the like). Such a record is sent once more: outputs are known by their ids, so twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.events import Output, OutputName
from streams.exits import BrokerUnavailable
from streams.refusals import not_allowed

MAX_MESSAGE_BYTES = 8 * 1024 * 1024  # the largest event (5 MB) in base64, its headers and the reason
DURABLE = {  # what a producer of librdkafka is told that may lose nothing, and whose records are large at times
    "enable.idempotence": True,
    "acks": "all",
    "compression.type": "lz4",
    "message.max.bytes": MAX_MESSAGE_BYTES,
}
_POLL_S = 0.001  # while something is not acknowledged yet
_IDLE_POLL_S = 1.0
BROKER_AWAY = {
    KafkaError._MSG_TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT,
    KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
}  # fmt: skip

Report = Callable[[KafkaError | None, Message], None]  # librdkafka's word on one record

log = logging.getLogger(__name__)


class DeliveryFailed(RuntimeError):
    """The broker refused an output; the message names the topic."""


def delivery_failure(error: KafkaError, topic: str, who: str) -> Exception:
    """What an output that the broker has not taken is to us; `who` we are, for the message."""
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return not_allowed(who, "Write", "topic", topic)
    kind = BrokerUnavailable if error.code() in BROKER_AWAY else DeliveryFailed
    return kind(f"output to topic {topic!r} was not acknowledged: {error.str()}")


def undelivered(error: KafkaError | None, message: Message) -> KafkaError | None:
    """Why a record with this report cannot be counted on; None where the broker has said where it lies."""
    if error is None and message.offset() is None:
        return KafkaError(KafkaError._MSG_TIMED_OUT, "it was acknowledged without an offset: it may be there or not")
    return error


class _Delivery:
    """Counts down the acknowledgements of one call; used where reports are served: on the loop, or in `close`.

    Args:
        count: how many there will be.
        future: resolved by the last of them.
        who: we are, for messages.
        again: sends a record once more, with a report that comes here; False where it cannot.
    """

    def __init__(
        self, count: int, future: asyncio.Future[None], who: str, again: Callable[[Message, Report], bool]
    ) -> None:
        self._missing = count
        self._who = who
        self._future = future
        self._again = again
        self._error: Exception | None = None

    def report(self, error: KafkaError | None, message: Message) -> None:
        failure = undelivered(error, message)
        if error is None and failure is not None and self._again(message, self.report):
            return
        self._missing -= 1
        if failure is not None and self._error is None:
            self._error = delivery_failure(failure, str(message.topic()), self._who)
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
        who: as whom, for messages about what is not allowed.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: Mapping[OutputName, str],
        delivery_timeout_s: float,
        who: str = "this client",
    ) -> None:
        self._topics = dict(topics)
        self._who = who
        self._trouble_s = float("-inf")
        self._producer = Producer(
            {
                **config,
                **DURABLE,
                "linger.ms": 2,
                "delivery.timeout.ms": int(delivery_timeout_s * 1000),
                "queue.buffering.max.messages": 200_000,
                "error_cb": self._on_error,
            },
            logger=logging.getLogger("librdkafka"),
        )
        self._closed = False
        self._next_poll: asyncio.TimerHandle | None = None

    async def send(self, outputs: Sequence[Output]) -> asyncio.Future[None]:
        """Hand over outputs in order; the future resolves when all are acknowledged.

        The future fails with `BrokerUnavailable` (not in time), `AccessRefused` (not allowed) or `DeliveryFailed`.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not outputs:
            future.set_result(None)
            return future
        delivery = _Delivery(len(outputs), future, self._who, self._send_again)
        queued = 0
        while (queued := self._produce(outputs, queued, delivery)) < len(outputs):
            self._poll()
            await asyncio.sleep(0.01)  # librdkafka's queue is full: let deliveries go on
        self._poll()
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
                raise delivery_failure(
                    error.args[0], topics[name], self._who
                ) from None  # known before it is even queued
        return len(outputs)

    def _send_again(self, message: Message, report: Report) -> bool:
        topic = str(message.topic())
        try:
            self._producer.produce(topic, message.value(), message.key(), message.partition() or 0, report)
        except (BufferError, KafkaException):
            return False
        log.warning("topic %s: a record was acknowledged without an offset; it is sent again", topic)
        return True

    def _on_error(self, _: KafkaError) -> None:
        self._trouble_s = time.monotonic()

    def troubled(self, within_s: float) -> bool:
        """Whether librdkafka reported trouble with its connections during the last so many seconds."""
        return time.monotonic() - self._trouble_s < within_s

    def _poll(self) -> None:
        """Serve delivery reports now, and again soon for as long as some are due."""
        if self._next_poll is not None:
            self._next_poll.cancel()
        self._producer.poll(0)
        if not self._closed:
            pause_s = _POLL_S if len(self._producer) else _IDLE_POLL_S
            self._next_poll = asyncio.get_running_loop().call_later(pause_s, self._poll)

    @property
    def unacknowledged(self) -> int:
        """Outputs handed over that the broker has not acknowledged yet."""
        return len(self._producer)

    def broker_answers(self, timeout_s: float) -> bool:
        """Whether any broker tells something about a topic in time. Blocks: call it in a thread."""
        try:
            self._producer.list_topics(next(iter(self._topics.values())), timeout_s)
        except KafkaException:
            return False
        return True

    def close(self, timeout_s: float) -> int:
        """Deliver what is queued, for at most `timeout_s`; returns how many records are left."""
        self._closed = True
        left: int = self._producer.flush(timeout_s)
        return left
