"""What tests need of a broker besides the code under test: reading topics, and addresses where none is."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition


def read_all(bootstrap: str, topic: str, partitions: int = 4) -> list[Message]:
    """Everything in a topic now, partition by partition, in the order of the offsets."""
    consumer = _consumer(bootstrap)
    consumer.assign([TopicPartition(topic, part, 0) for part in range(partitions)])
    found, ended = list[Message](), 0
    while ended < partitions:
        message = consumer.poll(60)
        assert message is not None, "the topic could not be read"
        if (error := message.error()) is None:
            found.append(message)
        else:
            assert error.code() == KafkaError._PARTITION_EOF, error
            ended += 1
    consumer.close()
    return sorted(found, key=lambda message: (message.partition() or 0, message.offset() or 0))


def committed(bootstrap: str, group: str, topic: str, partitions: int = 4) -> list[int]:
    """The committed offset of each partition; negative where there is none."""
    consumer = _consumer(bootstrap, group)
    found = consumer.committed([TopicPartition(topic, part) for part in range(partitions)], 10)
    consumer.close()
    return [one.offset for one in found]


class Ends:
    """How many records there are in some topics, asked again and again."""

    def __init__(self, bootstrap: str, topics: Iterable[str], partitions: int = 4) -> None:
        self._consumer = _consumer(bootstrap)
        self._parts = [TopicPartition(topic, part) for topic in topics for part in range(partitions)]

    def total(self) -> int:
        return sum(self._consumer.get_watermark_offsets(part, 10)[1] for part in self._parts)

    def close(self) -> None:
        self._consumer.close()


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _consumer(bootstrap: str, group: str = "reader") -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
