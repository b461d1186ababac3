"""Events into Kafka at a steady rate, and what comes of each of them out."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from models.datasets import Example
from streams.settings import Settings
from tests.learning_story.stage import PARTITIONS, SOURCE
from tests.whereabouts import SURE

KEYS = 2000  # accounts


@dataclass(frozen=True)
class Event:
    """What was sent: `pool` is the part of the world it is from."""

    pool: str
    text: Example
    due_ms: int


@dataclass(frozen=True)
class Answer:
    """What was predicted of it first, and when the broker had it."""

    id: str
    label: str
    release: str
    at: tuple[int, int]  # partition and offset of the event
    came_ms: int


class Sender(threading.Thread):
    """Sends texts of some pools, at random times at a mean rate; both can be changed while it goes on."""

    def __init__(self, settings: Settings, pools: Mapping[str, Sequence[Example]]) -> None:
        super().__init__(daemon=True)
        self.sent: dict[str, Event] = {}
        self.failed: list[str] = []
        self._pools, self._turns = pools, defaultdict[str, int](int)
        self._mix: list[str] = []
        self._per_s = 0.0
        self._rng, self._one_at_a_time = random.Random(1), threading.Lock()
        self._stopping, self._change = threading.Event(), threading.Event()
        self._topic = settings.sources[SOURCE].topic
        self._producer = Producer({
            "bootstrap.servers": settings.broker.bootstrap, **SURE, "linger.ms": 1, "log_level": 0,
        })  # fmt: skip

    def flow(self, per_s: float, *mix: str) -> None:
        """From now on so many events a second, of these pools in equal parts; without any as before."""
        self._mix = [*mix] or self._mix
        self._per_s = per_s
        self._change.set()

    def burst(self, count: int) -> None:
        """So many at once, beside those that flow."""
        for _ in range(count):
            with self._one_at_a_time:
                self._send(time.time())

    def run(self) -> None:
        due_s = time.time()
        while not self._stopping.is_set():
            if not self._per_s:
                self._change.wait(0.05)
                due_s = time.time()
                continue
            due_s += self._rng.expovariate(self._per_s)
            if (ahead_s := due_s - time.time()) > 0:
                self._stopping.wait(ahead_s)
            with self._one_at_a_time:
                self._send(due_s)

    def _send(self, due_s: float) -> None:
        number = len(self.sent)
        pool = self._mix[number % len(self._mix)]
        texts = self._pools[pool]
        example = texts[self._turns[pool] % len(texts)]
        self._turns[pool] += 1
        name = f"e{number}"
        self.sent[name] = Event(pool, example, int(1000 * due_s))
        account = f"a{self._rng.randrange(KEYS)}"
        value = {"id": name, "text": example.text, "ts": due_s, "account": account}
        self._producer.produce(self._topic, json.dumps(value).encode(), account.encode(), on_delivery=self._delivered)
        self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self.failed.append(error.str())

    def end(self) -> None:
        """No more; all that were sent are there."""
        self._stopping.set()
        self.join(30)
        left = self._producer.flush(60)
        if left or self.failed:
            raise RuntimeError(f"the broker did not take {left or self.failed} of the events")


class Reader(threading.Thread):
    """Reads predictions from the beginning."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self.answers: dict[str, Answer] = {}
        self.repeated = 0
        self._stopping = threading.Event()
        self._consumer = consumer(settings, settings.topics.predictions)

    def run(self) -> None:
        while not self._stopping.is_set():
            for message in self._consumer.consume(500, 0.1):
                if message.error() is None:
                    self._take(message)
        self._consumer.close()

    def _take(self, message: Message) -> None:
        value: dict[str, Any] = orjson.loads(message.value() or b"")
        name, source = value["event_id"], value["source"]
        if name in self.answers:
            self.repeated += 1
            return
        at = (source["partition"], source["offset"])
        self.answers[name] = Answer(value["id"], value["label"], value["release"], at, message.timestamp()[1])

    def end(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self.join(10)


def consumer(settings: Settings, topic: str) -> Consumer:
    """One that reads a topic from its beginning and leaves no trace."""
    found = Consumer({
        "bootstrap.servers": settings.broker.bootstrap, "group.id": "story", "enable.auto.commit": False,
        "fetch.wait.max.ms": 20, "log_level": 0,
    })  # fmt: skip
    found.assign([TopicPartition(topic, part, 0) for part in range(PARTITIONS)])
    return found


class Stream:
    """Both together: what was sent, and what came of it."""

    def __init__(self, settings: Settings, pools: Mapping[str, Sequence[Example]]) -> None:
        self.sender, self.reader = Sender(settings, pools), Reader(settings)

    def begin(self) -> None:
        self.sender.start()
        self.reader.start()

    @property
    def waiting(self) -> int:
        """Events without an answer so far."""
        return len(self.sender.sent) - len(self.reader.answers)

    def drained(self, within_s: float) -> bool:
        """Wait until every event has its answer; whether that came to be in time."""
        end_s = time.monotonic() + within_s
        while self.waiting > 0:
            if time.monotonic() > end_s:
                return False
            time.sleep(0.05)
        return True

    def answered(self, first: int = 0) -> list[tuple[Event, Answer]]:
        """Events and their answers, in the order in which the answers came, from this one on."""
        names = list(self.reader.answers)[first:]
        return [(self.sender.sent[name], self.reader.answers[name]) for name in names]

    def end(self) -> None:
        """No more events; whatever can still come has come."""
        self.sender.end()
        self.drained(60)
        self.reader.end()
