"""A topic read again and again, each time what has come since: for jobs that look every few seconds."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import Message

from streams.reading import TopicReader
from streams.settings import Settings


class CatchingUp:
    """Where one job is in one topic. Nothing is committed: a new process begins anew.

    Args:
        settings: where the broker is.
        topic: its name.
        group: the broker asks for a name.
        most: records of a partition that are read at once, the newest ones; None: all.
    """

    def __init__(self, settings: Settings, topic: str, group: str, most: int | None = None) -> None:
        self._settings, self._topic, self._group, self._most = settings, topic, group, most
        self._offsets: dict[int, int] = {}
        self.skipped = 0  # records that were more than that

    def new(self) -> Iterator[Message]:
        """The records that have come since the last time, each partition in order.

        Raises:
            BrokerUnavailable: the topic is not there, or cannot be read.
        """
        reader = TopicReader(self._settings, self._topic, self._group)
        ranges = {}
        for part, (low, high) in reader.ranges.items():
            start = min(max(low, self._offsets.get(part, low)), high)
            first = start if self._most is None else max(start, high - self._most)
            self.skipped += first - start
            ranges[part] = (first, high)
        yield from reader.messages(ranges)
        self._offsets = {part: high for part, (_, high) in ranges.items()}
