"""The `releases` topic: which release each task has in each role. Compacted, so that its end is all there is to know.

    risk/champion    -> {"release": ..., "mode": "serve", "previous": {...}, ...}
    risk/challenger  -> {"release": ..., "mode": "canary", "share": 0.1, ...}    null: there is none any more

People and jobs write it (`streamgauge releases promote`), every worker follows it. What is no release record, or under
another key than its own, changes nothing: it is counted and named in the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import TypeAdapter, ValidationError

from models.references import CHAMPION
from streams.events import Release, ReleaseRole
from streams.exits import BrokerUnavailable
from streams.learning.outbox import Outbox
from streams.refusals import not_allowed, who
from streams.security import librdkafka_config
from streams.settings import Settings

MAX_RECORD_BYTES = 65_536

Key = tuple[str, ReleaseRole]  # task, role
Standing = dict[Key, Release]

log = logging.getLogger(__name__)
_RELEASE: TypeAdapter[Release] = TypeAdapter(Release)
_ANSWER_S = 30.0


class NotARelease(ValueError):
    """A record of the topic that says nothing a worker could follow; the message says why."""


def key_of(task: str, role: ReleaseRole) -> str:
    """The record's key."""
    return f"{task}/{role}"


def release_of(key: str, value: bytes) -> Release:
    """A record's release.

    Raises:
        NotARelease: it is malformed, or stands under another key than its own.
    """
    if len(value) > MAX_RECORD_BYTES:
        raise NotARelease(f"{len(value)} bytes, allowed {MAX_RECORD_BYTES}")
    try:
        found = _RELEASE.validate_json(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise NotARelease(f"{'.'.join(map(str, first['loc'])) or '(record)'}: {first['msg']}") from None
    if key != key_of(found["task"], found["role"]):
        raise NotARelease(f"it is of {key_of(found['task'], found['role'])}")
    if (found["role"] == CHAMPION) != (found["mode"] == "serve"):
        raise NotARelease(f"mode: {found['mode']!r} is not for a {found['role']}")
    return found


def take(standing: Standing, message: Message) -> bool:
    """Bring what stands up to date with one more record; whether it changed."""
    key, value = (message.key() or b"").decode("utf-8", "replace"), message.value()
    task, _, role = key.rpartition("/")
    try:
        if role not in ("champion", "challenger"):
            raise NotARelease("a key is task/champion or task/challenger")
        place: Key = (task, "champion" if role == CHAMPION else "challenger")
        if value is None:
            return standing.pop(place, None) is not None
        found = release_of(key, value)
    except NotARelease as error:
        at = f"{message.topic()}/{message.partition()}/{message.offset()}"
        log.error("%s (key %.200r) is passed over: %s", at, key, error)
        return False
    if standing.get(place) == found:
        return False
    standing[place] = found
    return True


class ReleasesTopic:
    """Reads the topic from its beginning, and goes on with what is new. It joins no group and commits nothing."""

    def __init__(self, settings: Settings) -> None:
        """Connects at the first call of `read`."""
        self._topic, self._who, self._group = settings.topics.releases, who(settings.broker), settings.broker.group
        self._consumer = Consumer(
            librdkafka_config(settings.broker)
            | {
                "group.id": self._group,  # it is never joined: one right less to give
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": 1024,
                "log_level": 0,
            }
        )
        self._ended: set[int] = set()  # partitions
        self.standing: Standing = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._consumer.close()

    def read(self) -> Standing:
        """Read to the end as it is now. Blocks.

        Raises:
            BrokerUnavailable: the topic is not there, or its end was not reached in time.
            AccessRefused: it may not be read.
        """
        try:
            found = self._consumer.list_topics(self._topic, _ANSWER_S).topics[self._topic].partitions
            parts = [TopicPartition(self._topic, one, OFFSET_BEGINNING) for one in found]
            if not parts:
                raise BrokerUnavailable(f"topic {self._topic} is not there; run: streamgauge topics create")
        except KafkaException as error:
            raise self._refusal(error.args[0]) from None
        self._consumer.assign(parts)
        self._ended.clear()
        until_s = time.monotonic() + _ANSWER_S
        while len(self._ended) < len(parts):
            if time.monotonic() > until_s:
                raise BrokerUnavailable(f"topic {self._topic} was not read to its end within {_ANSWER_S:g} s")
            self._take(self._consumer.consume(100, 0.05))
        return self.standing

    def poll(self) -> bool:
        """Take in what has come since, without waiting; whether anything changed."""
        return self._take(self._consumer.consume(100, 0))

    def _take(self, messages: Sequence[Message]) -> bool:
        changed = False
        for message in messages:
            if (error := message.error()) is None:
                changed |= take(self.standing, message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(message.partition() or 0)
            elif error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise self._refusal(error)
        return changed

    def _refusal(self, error: KafkaError) -> Exception:
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return not_allowed(self._who, "Read", "topic", self._topic)
        return BrokerUnavailable(f"topic {self._topic} cannot be read: {error.str()}")


def read_standing(settings: Settings) -> Standing:
    """What the topic says now. Raises BrokerUnavailable and AccessRefused."""
    with ReleasesTopic(settings) as topic:
        return topic.read()


def write(settings: Settings, changes: Mapping[Key, Release | None]) -> None:
    """Write records in their order, acknowledged by all replicas; None ends a role.

    Raises what `Outbox.flush` raises.
    """
    outbox = Outbox(settings)
    for (task, role), release in changes.items():
        outbox.send(settings.topics.releases, key_of(task, role), release)
    outbox.flush()
