"""Where a record lies that the broker has stored, also when the report of its delivery does not say so."""

import time
import uuid

from confluent_kafka import Consumer, Message, TopicPartition

from streams.events import Coordinates

LOOK_S = 30.0
# With one request under way an answer that was lost is given again with its offset. With five, the broker may say no
# more than that it has had the sequence number, and the record may not be there at all.
SURE = {"enable.idempotence": True, "max.in.flight.requests.per.connection": 1}


def stored_at(message: Message, bootstrap: str) -> Coordinates:
    """Where the record of a delivery report without an error lies.

    After a lost answer an idempotent producer sends again, and the broker may say no more than that it has the record
    already. Then the partition is searched: keys and values together must not repeat in it.
    """
    topic, partition = message.topic(), message.partition()
    assert topic is not None
    assert partition is not None
    if message.offset() is not None:
        return Coordinates.of(message)
    return searched(bootstrap, TopicPartition(topic, partition, 0), message.key(), message.value())


def searched(bootstrap: str, start: TopicPartition, key: object, value: object) -> Coordinates:
    """The first record of a partition, from an offset on, with this key and value."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": str(uuid.uuid4()), "enable.auto.commit": False})
    try:
        consumer.assign([start])
        end_s = time.monotonic() + LOOK_S
        while time.monotonic() < end_s:
            for found in consumer.consume(1000, 0.5):
                if found.error() is None and (found.key(), found.value()) == (key, value):
                    return Coordinates.of(found)
    finally:
        consumer.close()
    raise AssertionError(f"{start.topic}/{start.partition}: a record that was acknowledged is not there: {key!r}")
