"""What people were asked about before: read from the `review` topic, which outlives the watch that asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import orjson
from confluent_kafka import Message

from models.learning.selection import DAY_S, Why
from streams.events import ReviewRequest
from streams.reading import TopicReader
from streams.settings import Settings


@dataclass
class AskedBefore:
    """Of one task: which texts, by the key of their opinions, and how many of them today."""

    keys: dict[str, Why] = field(default_factory=dict)
    today: int = 0


class Request(NamedTuple):
    """A text that the watch asked people to label: of which task, by the key of its opinions, and why."""

    task: str
    key: str
    why: Why


def asked_before(
    settings: Settings, group: str, now_s: float, on_read: Callable[[], None] = lambda: None
) -> dict[str, AskedBefore]:
    """By task, what the watch has asked for as far back as the topic goes; review requests of workers are passed over.

    Raises:
        BrokerUnavailable: the topic cannot be read.
    """
    found: dict[str, AskedBefore] = defaultdict(AskedBefore)
    reader = TopicReader(settings, settings.topics.review, group)
    for message in reader.messages(reader.ranges):
        on_read()
        if (asked := asked_in(message)) is not None:
            its = found[asked.task]
            its.keys[asked.key] = asked.why
            its.today += message.timestamp()[1] / 1000 // DAY_S == now_s // DAY_S
    return found


def asked_in(message: Message) -> Request | None:
    """What a record of the `review` topic asks for; None for the requests of workers, and for what is no request."""
    value: Any = message.value() or b""
    if b'"informative"' not in value and b'"random"' not in value:
        return None
    try:
        request = cast(ReviewRequest, orjson.loads(value))
        why, key, task = request["reason"], key_of(request["source"]), request["task"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None  # whoever wrote this, it was not the watch
    if why not in ("informative", "random") or not isinstance(task, str):
        return None
    return Request(task, key, why)


def key_of(source: Any) -> str:
    """The key that opinions have on the event of a prediction, from its `source`."""
    return f"{source['topic']}/{source['partition']}/{source['offset']}"
