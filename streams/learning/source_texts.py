"""Events read again where they lie, by the intake that read them when they were scored."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from types import TracebackType
from typing import Literal, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.events import Coordinates, Event, Rejected
from streams.exits import BrokerUnavailable
from streams.intake import Intake
from streams.learning.feedback import KafkaRecord
from streams.reading import NO_ANSWER_S
from streams.security import librdkafka_config
from streams.settings import Settings
from streams.topics import connect

Found = Event | Rejected | Literal["gone", "not yet"]

NEARBY = 500  # records that are read through; beyond them a seek is cheaper


class SourceTexts:
    """Reads single events of the source topics.

    Args:
        settings: the broker and the sources.
        group: nothing is committed, but the broker asks for a name.
        clock: the wall clock, seconds since 1970.
    """

    def __init__(self, settings: Settings, group: str, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._intakes = {
            source.topic: Intake(name, source, settings.intake) for name, source in settings.active_sources.items()
        }
        self._consumer = Consumer(
            librdkafka_config(settings.broker)
            | {
                "group.id": group,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",  # retention may pass by while we read
                "queued.max.messages.kbytes": 1024,  # most of what is fetched ahead is thrown away
                "max.partition.fetch.bytes": 128 << 10,
                "log_level": 0,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._consumer.close()

    def find(
        self, wanted: Collection[Coordinates], on_found: Callable[[], None] = lambda: None
    ) -> dict[Coordinates, Found]:
        """What lies at each place: an event, why it is none, or that nothing is there any more, or not yet.

        Raises:
            BrokerUnavailable: a partition cannot be read, or nothing came for a while.
        """
        found = dict[Coordinates, Found]()
        if not wanted:
            return found
        partitions = self._partitions()
        for (topic, partition), places in groupby(sorted(set(wanted)), key=lambda at: (at.topic, at.partition)):
            if topic not in self._intakes or partition not in partitions[topic]:
                found |= dict.fromkeys(places, "gone")
                continue
            for at, one in self._in_partition(topic, partition, [at.offset for at in places]):
                found[at] = one
                on_found()
        return found

    def _partitions(self) -> dict[str, Collection[int]]:
        _, cluster = connect(self._settings)
        there = {name: topic.partitions for name, topic in cluster.topics.items() if topic.error is None}
        return defaultdict(tuple, there)

    def _in_partition(self, topic: str, partition: int, offsets: list[int]) -> Iterator[tuple[Coordinates, Found]]:
        """Offsets ascend."""
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), NO_ANSWER_S)
        except KafkaException as error:
            raise BrokerUnavailable(f"topic {topic} cannot be read: {error.args[0].str()}") from None
        position: int | None = None
        ahead: Message | None = None  # read, and lying behind what was looked for
        for offset in offsets:
            at = Coordinates(topic, partition, offset)
            if not low <= offset < high:
                yield at, "gone" if offset < low else "not yet"
                continue
            if ahead is None or (ahead.offset() or 0) < offset:
                self._go_to(at, position)
                ahead = self._next(at)
                position = None if ahead is None else (ahead.offset() or 0) + 1  # its end is told once
            if ahead is None or ahead.offset() != offset:
                yield at, "gone"  # compacted, or a marker of a transaction
                continue
            (decoded,) = self._intakes[topic].decode([KafkaRecord.of(ahead)], self._clock())
            yield at, decoded

    def _go_to(self, at: Coordinates, position: int | None) -> None:
        if position is None or not 0 <= at.offset - position <= NEARBY:
            self._consumer.assign([TopicPartition(*at)])

    def _next(self, at: Coordinates) -> Message | None:
        """The first record at or behind a place; None when the partition ends before."""
        heard_s = time.monotonic()
        while True:
            message = self._consumer.poll(0.5)
            if message is None:
                if time.monotonic() - heard_s > NO_ANSWER_S:
                    raise BrokerUnavailable(f"topic {at.topic}: nothing could be read for {NO_ANSWER_S:g} s")
                continue
            if (error := message.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    return None
                if error.fatal() or not error.retriable():
                    raise BrokerUnavailable(f"topic {at.topic} cannot be read: {error.str()}")
                continue
            heard_s = time.monotonic()
            if Coordinates.of(message) >= at:
                return message
