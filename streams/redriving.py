"""The dead-letter topic read from its beginning to its end as of now, and events sent back to where they came from.

    event to its source partition, acknowledged  ->  mark into the letter's partition, acknowledged

When this is cut off between the two, the letter is sent back again next time: with the same lineage, so that the
outputs of both copies have the same ids.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.dead_letters import MARK_HEADER, Letter, NotALetter, letter_of, marked
from streams.events import Coordinates
from streams.exits import BrokerUnavailable
from streams.grants import MissingTopics, grants, require_access
from streams.publishing import BROKER_AWAY, DURABLE
from streams.reading import Ranges, TopicReader
from streams.security import librdkafka_config
from streams.settings import Settings

log = logging.getLogger(__name__)

_DELIVERY_TIMEOUT_S = 60.0
_UNACKNOWLEDGED = 200
_UNACKNOWLEDGED_BYTES = 32 * 1024 * 1024


@dataclass
class Passed:
    """What a reading passed over, for a person to know."""

    records: int = 0
    skipped: int = 0
    first_skipped: str = ""


class LetterTopic(TopicReader):
    """The dead-letter topic as it is at the moment of opening: what comes later is not read."""

    def __init__(self, settings: Settings, shed: bool = False) -> None:
        """Of what was shed, or of dead letters.

        Raises BrokerUnavailable if the broker does not answer or has no such topic, AccessRefused if not allowed.
        """
        with contextlib.suppress(MissingTopics):  # said below
            require_access(settings, [one for one in grants(settings, "dead-letters") if one.operation != "Write"])
        name = settings.topics.shed if shed else settings.topics.dead_letters
        super().__init__(settings, name, f"{settings.broker.group}-dead-letters")

    def marks(self, on_read: Callable[[], None] = lambda: None) -> frozenset[int]:
        """Hashes of the ids of all letters that were redriven: 64 bits each, whatever the size of the letters."""
        found: set[int] = set()
        for message in self.messages(self.ranges):
            on_read()
            if message.value() is None:
                found.update(map(hash, marked(headers_of_message(message))))
        return frozenset(found)

    def letters(
        self, passed: Passed, on_read: Callable[[], None] = lambda: None, ranges: Ranges | None = None
    ) -> Iterator[Letter]:
        """Every letter, one at a time; marks are left out, what is no letter is counted."""
        for message in self.messages(self.ranges if ranges is None else ranges):
            on_read()
            passed.records += 1
            value = message.value()
            if value is None and marked(headers_of_message(message)):
                continue
            try:
                yield letter_of(Coordinates.of(message), message.key(), value or b"")
            except NotALetter as error:
                passed.skipped += 1
                passed.first_skipped = passed.first_skipped or str(error)


def headers_of_message(message: Message) -> list[tuple[str, bytes | None]]:
    """The headers of a record that was read; none when their names are not UTF-8, which no mark's are."""
    try:
        found: Any = message.headers()  # its type also knows what only a producer may give
    except UnicodeDecodeError:
        return []
    return list(found or ())


@dataclass
class Tally:
    """What became of the letters handed over. `failed` says why, by letter id; a mark that was not written is
    `forgotten`: the letter went, and would go again."""

    redriven: int = 0
    forgotten: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    by_topic: Counter[str] = field(default_factory=Counter)


class Redriver:
    """Sends events back and marks their letters, with a bounded number and size on the way.

    Args:
        settings: where the broker is.
        marks_topic: the dead-letter topic.
        rate_per_s: letters a second at most.
        stopping: asked before and while waiting; true ends the waiting.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        marks_topic: str,
        rate_per_s: float,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tally = Tally()
        self._marks_topic = marks_topic
        self._interval_s = 1 / rate_per_s
        self._stopping = stopping
        self._clock = clock
        self._due_s = clock()
        self._away: KafkaError | None = None
        self._waiting_bytes = 0
        self._producer = Producer(
            librdkafka_config(settings.broker) | DURABLE | {"delivery.timeout.ms": int(_DELIVERY_TIMEOUT_S * 1000)},
            logger=log,
        )

    def send(self, letter: Letter) -> bool:
        """Hand a letter over when its turn has come; False when it was not, as everything is to stop.

        Raises:
            BrokerUnavailable: earlier ones were not acknowledged in time.
        """
        while not self._stopping() and ((wait_s := self._due_s - self._clock()) > 0 or self._full()):
            self._producer.poll(min(max(wait_s, 0.01), 0.1))
            self._raise_if_away()
        if self._stopping():
            return False
        self._due_s = max(self._due_s, self._clock() - self._interval_s) + self._interval_s
        self._produce(letter)
        self._producer.poll(0)
        self._raise_if_away()
        return True

    def finish(self) -> None:
        """Wait for all acknowledgements, those of the marks too.

        Raises:
            BrokerUnavailable: they did not come in time.
        """
        left = self._producer.flush(2 * _DELIVERY_TIMEOUT_S)
        self._raise_if_away()
        if left:
            raise BrokerUnavailable(f"{left} records were not acknowledged in time")

    def _full(self) -> bool:
        return len(self._producer) >= _UNACKNOWLEDGED or self._waiting_bytes >= _UNACKNOWLEDGED_BYTES

    def _produce(self, letter: Letter) -> None:
        size = len(letter.value or b"")

        def acknowledged(error: KafkaError | None, _: Message) -> None:
            self._waiting_bytes -= size
            if error is not None:
                self._failed(letter.id, error)
                return
            self.tally.redriven += 1
            self.tally.by_topic[letter.topic] += 1
            self._mark(letter)

        self._waiting_bytes += size
        try:
            self._producer.produce(
                letter.topic, letter.value, letter.key, letter.partition, acknowledged,
                headers=list(letter.redrive_headers()),
            )  # fmt: skip
        except KafkaException as error:
            self._waiting_bytes -= size
            self._failed(letter.id, error.args[0])

    def _mark(self, letter: Letter) -> None:
        def acknowledged(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self.tally.forgotten += 1
                log.warning("letter %r was redriven, but this could not be noted: %s", letter.id, error.str())

        headers: list[tuple[str, str | bytes | None]] = [(MARK_HEADER, letter.id.encode())]
        self._producer.produce(
            self._marks_topic, None, letter.topic_key, letter.lies.partition, acknowledged, headers=headers
        )

    def _failed(self, letter_id: str, error: KafkaError) -> None:
        self.tally.failed[letter_id] = error.str()
        if error.code() in BROKER_AWAY:
            self._away = self._away or error

    def _raise_if_away(self) -> None:
        if self._away is not None:
            raise BrokerUnavailable(f"the broker did not acknowledge in time: {self._away.str()}")
