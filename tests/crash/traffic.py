"""What is sent through a worker under test, and what must come out of it, told without the product's help."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from streams.events import Coordinates
from tests.crash.worker import HEADS
from tests.kafka.harness import BAD
from tests.whereabouts import SURE, stored_at

TASKS = {"news": "sentiment", "chat": "intent"}
EVERY_S = 15  # of event time, from one event to the next
STARTS_AT = 1_760_000_000
ENTITIES = 2


@dataclass(frozen=True)
class Event:
    """What is sent: to which source, its bytes, and the label that its text names; None for a bad one."""

    source: str
    value: bytes
    label: str | None


@dataclass
class Wanted:
    """What must come out, by output id; `letters` holds the bytes of bad inputs, `ends` how many were sent where."""

    predictions: dict[str, str] = field(default_factory=dict)  # its label
    routes: set[str] = field(default_factory=set)
    observations: set[str] = field(default_factory=set)
    letters: dict[str, bytes] = field(default_factory=dict)
    sent: int = 0

    def expect(self, event: Event, at: Coordinates) -> None:
        """The broker has stored an event there."""
        self.sent += 1
        if event.label is None:
            self.letters[f"{at}/dead-letter"] = event.value
            return
        prediction = f"{at}/{TASKS[event.source]}"
        self.predictions[prediction] = event.label
        if event.source == "chat":
            self.routes.add(f"{prediction}/route")
        else:
            self.observations.add(f"{at}/observation/0")


def events(count: int, bad_share: float, seed: int) -> list[Event]:
    """News in quiet times and bursts of bad ones, chat between them, and some that nobody can read."""
    rng = random.Random(seed)
    bad = set(rng.sample(range(count), int(count * bad_share)))
    return [_bad(number, rng) if number in bad else _good(number, rng) for number in range(count)]


def _bad(number: int, rng: random.Random) -> Event:
    return Event(_source(number), rng.choice(BAD), None)


def _good(number: int, rng: random.Random) -> Event:
    source = _source(number)
    labels = HEADS[TASKS[source]]
    burst = source == "news" and number % 80 >= 60
    label = "negative" if burst else rng.choice(labels[1:])
    body: dict[str, Any] = {"id": f"e{number}", "ts": STARTS_AT + number * EVERY_S, "text": f"{label} number {number}"}
    body |= {"symbols": [f"S{number // 2 % ENTITIES}"]} if source == "news" else {"conversation": f"C{number % 5}"}
    return Event(source, json.dumps(body).encode(), label)


def _source(number: int) -> str:
    return ("news", "chat")[number % 2]


def send(bootstrap: str, topics: dict[str, str], some: Sequence[Event], seconds: float, wanted: Wanted) -> None:
    """Send events over so many seconds; returns when the broker has them all, and `wanted` knows what must come."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 2} | SURE)
    before = wanted.sent

    def reporter(event: Event) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            wanted.expect(event, stored_at(message, bootstrap))

        return report

    started_s = time.monotonic()
    for number, event in enumerate(some):
        producer.produce(topics[event.source], event.value, str(number).encode(), on_delivery=reporter(event))
        producer.poll(0)
        ahead_s = number * seconds / len(some) - (time.monotonic() - started_s)
        if ahead_s > 0.005:
            time.sleep(ahead_s)
    assert producer.flush(120) == 0
    assert wanted.sent - before == len(some)
