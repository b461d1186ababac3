"""A topic read from one place to another, once: by jobs that look at what is there, and follow nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cached_property

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition

from streams.events import Coordinates
from streams.exits import BrokerUnavailable
from streams.security import librdkafka_config
from streams.settings import Settings
from streams.topics import connect, is_embedded

Ranges = Mapping[int, tuple[int, int]]  # by partition: the first offset to read, and the one to stop before

NO_ANSWER_S = 30.0


class TopicReader:
    """A topic as it is at the moment of opening: what comes later is not read.

    Args:
        settings: where the broker is.
        name: of the topic.
        group: nothing is committed, but the broker asks for a name.

    Raises:
        BrokerUnavailable: the broker does not answer or has no such topic.
    """

    def __init__(self, settings: Settings, name: str, group: str) -> None:
        self.name = name
        self._admin, cluster = connect(settings)
        self._has_ids = not is_embedded(cluster)
        if name not in cluster.topics:
            raise BrokerUnavailable(f"topic {name} is not there; run: streamgauge topics create")
        self._config = librdkafka_config(settings.broker) | {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",  # retention may pass by while we read
            "queued.max.messages.kbytes": 16 * 1024,
            "log_level": 0,
        }
        consumer = Consumer(self._config)
        try:
            self.ranges: Ranges = {
                one: consumer.get_watermark_offsets(TopicPartition(name, one), NO_ANSWER_S)
                for one in sorted(cluster.topics[name].partitions)
            }
        except KafkaException as error:
            raise BrokerUnavailable(f"topic {name} cannot be read: {error.args[0].str()}") from None
        finally:
            consumer.close()

    @property
    def records(self) -> int:
        """How many there are to read, at most."""
        return sum(high - low for low, high in self.ranges.values())

    @cached_property
    def id(self) -> str:
        """What the cluster calls this topic: another name when it is made anew. Empty where there are no such ids.

        Raises:
            BrokerUnavailable: the broker does not say.
        """
        if not self._has_ids:
            return ""
        try:
            asked = self._admin.describe_topics(TopicCollection([self.name]), request_timeout=NO_ANSWER_S)
            return str(asked[self.name].result().topic_id)
        except KafkaException as error:
            raise BrokerUnavailable(f"topic {self.name} cannot be described: {error.args[0].str()}") from None

    def messages(self, ranges: Ranges) -> Iterator[Message]:
        """The records of these ranges, each partition in order.

        Raises:
            BrokerUnavailable: a partition cannot be read, or nothing came for a while.
        """
        open_to = {part: high for part, (low, high) in ranges.items() if low < high}
        if not open_to:
            return
        consumer = Consumer(self._config)
        heard_s = time.monotonic()
        try:
            consumer.assign([TopicPartition(self.name, part, ranges[part][0]) for part in open_to])
            while open_to:
                message = consumer.poll(0.5)
                if message is None:
                    if time.monotonic() - heard_s > NO_ANSWER_S:
                        raise BrokerUnavailable(f"topic {self.name}: nothing could be read for {NO_ANSWER_S:g} s")
                    continue
                heard_s = time.monotonic()
                if (error := message.error()) is not None:
                    self._ended(error, message, open_to)
                    continue
                at = Coordinates.of(message)
                if at.offset < open_to.get(at.partition, -1):
                    yield message
                if at.offset >= open_to.get(at.partition, at.offset) - 1:
                    open_to.pop(at.partition, None)
        finally:
            consumer.close()

    def _ended(self, error: KafkaError, message: Message, open_to: dict[int, int]) -> None:
        """A partition may end before the offset to stop at: what lies there can be markers, which nobody is given."""
        if error.code() == KafkaError._PARTITION_EOF:
            open_to.pop(message.partition() or 0, None)
        elif error.fatal() or not error.retriable():
            raise BrokerUnavailable(f"topic {self.name} cannot be read: {error.str()}")
