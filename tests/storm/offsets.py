"""The group as the brokers see it: what it has committed beside where the log ends, and whether it is whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, ConsumerGroupState, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.storm.patience import Patience

ATTEMPT_S = 5.0


class Position(NamedTuple):
    """Of one partition; `committed` is 0 where nothing was."""

    topic: str
    partition: int
    committed: int
    end: int


def client(bootstrap: str, group: str, **more: Any) -> Consumer:
    """A consumer that commits nothing and is not surprised when a broker is away."""
    quiet = {"log_level": 0, "reconnect.backoff.max.ms": 1000, "enable.auto.commit": False}
    return Consumer({"bootstrap.servers": bootstrap, "group.id": group, **quiet, **more})


def end_of(consumer: Consumer, topic: str, partition: int, timeout_s: float = 30.0) -> int:
    """The log end of a partition. Raises KafkaException when no broker says it in time."""
    patience = Patience(timeout_s)
    while True:
        try:
            end: int = consumer.get_watermark_offsets(TopicPartition(topic, partition), ATTEMPT_S)[1]
            return end
        except KafkaException:
            if patience.over:
                raise


def positions(bootstrap: str, group: str, topics: Sequence[str], partitions: int) -> list[Position]:
    """Of every partition of the topics."""
    consumer = client(bootstrap, group)
    try:
        parts = [TopicPartition(topic, part) for topic in topics for part in range(partitions)]
        return [
            Position(one.topic, one.partition, max(0, one.offset), end_of(consumer, one.topic, one.partition))
            for one in consumer.committed(parts, 30)
        ]
    finally:
        consumer.close()


def group_is_whole(bootstrap: str, group: str, members: int, ready: int, partitions: int) -> bool:
    """Whether the group is at rest with so many members, and those that are ready share all of so many partitions.

    Faust hands out as many partitions as divided by the members, rounded up: the last members may have none.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        found = admin.describe_consumer_groups([group], request_timeout=ATTEMPT_S)[group].result()
    except KafkaException:
        return False
    shares = [[(tp.topic, tp.partition) for tp in one.assignment.topic_partitions] for one in found.members]
    busy, assigned = sum(map(bool, shares)), {tp for share in shares for tp in share}
    return found.state == ConsumerGroupState.STABLE and (len(shares), busy, len(assigned)) == (
        members, ready, partitions,
    )  # fmt: skip
