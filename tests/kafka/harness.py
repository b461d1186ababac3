"""Breaks workers while events flow, and counts at the outputs what became of each event.

The harness knows nothing of the worker but its topics: events carry numbers, the broker's delivery reports give their
coordinates, and a reader of the output topics looks for exactly one kind of end for each. The same harness runs a naive
agent, which must lose events: a harness that cannot see loss proves nothing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but exported without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from streams.events import Coordinates
from tests.whereabouts import SURE, stored_at

ROOT = Path(__file__).parents[2]
BAD = (
    b"\xff\xfe\x00 not utf-8",
    b"{'id': 1}",
    b"[1, 2, 3]",
    b'{"id": "x", "text": "   "}',
    b'{"id": "x", "text": "y", "amount": NaN}',
    b'{"id": "x", "text": "y", "ts": "2999-01-01"}',
    b'{"id": "x", "a": ' + b"[" * 60 + b"]" * 60 + b"}",
    b'{"id": "x", "text": 17}',
)


@dataclass
class Sent:
    """What the broker has taken, by coordinates."""

    good: dict[Coordinates, str] = field(default_factory=dict)  # event id
    bad: dict[Coordinates, bytes] = field(default_factory=dict)  # the bytes


@dataclass
class Seen:
    """What came out: by event id, or by coordinates of the input, what must repeat on redelivery."""

    predictions: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # (output id, label)
    dead: dict[Coordinates, list[Mapping[str, Any]]] = field(default_factory=dict)

    def duplicates(self) -> int:
        """How many outputs came more than once."""
        ends = [len(one) for one in self.predictions.values()] + [len(one) for one in self.dead.values()]
        return sum(ends) - len(ends)


def send_events(
    bootstrap: str, topics: Sequence[str], count: int, bad_share: float, seconds: float, seed: int, first: int = 0
) -> Sent:
    """Send events numbered from `first` over the topics in turn, spread over some seconds; returns once all are
    acknowledged."""
    rng = random.Random(seed)
    bad = set(rng.sample(range(count), int(count * bad_share)))
    sent = Sent()
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5} | SURE)

    def reporter(number: int, value: bytes) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            at = stored_at(message, bootstrap)
            if number in bad:
                sent.bad[at] = value
            else:
                sent.good[at] = f"e{first + number}"

        return report

    started_s = time.monotonic()
    for number in range(count):
        value = rng.choice(BAD) if number in bad else event(first + number)
        producer.produce(topics[number % len(topics)], value, str(number).encode(), on_delivery=reporter(number, value))
        producer.poll(0)
        ahead_s = number * seconds / count - (time.monotonic() - started_s)
        if ahead_s > 0.01:
            time.sleep(ahead_s)
    assert producer.flush(60) == 0
    assert len(sent.good) + len(sent.bad) == count
    return sent


def event(number: int) -> bytes:
    """A good event, its text a little different in words and length for each number."""
    words = ("bank", "card", "loan", "shares", "parcel", "fraud", "rent", "refund")
    text = " ".join(words[(number >> shift) % 8] for shift in range(0, 3 + number % 9, 3)) + f" number {number}"
    return json.dumps({"id": f"e{number}", "text": text, "symbols": [f"S{number % 7}"]}).encode()


class Reader(threading.Thread):
    """Reads predictions and dead letters from the beginning until told to stop."""

    def __init__(self, bootstrap: str, predictions: str, dead_letters: str, partitions: int) -> None:
        super().__init__(daemon=True)
        self.seen = Seen()
        self._predictions = predictions
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "verifier", "enable.auto.commit": False, "log_level": 0}
        )
        self._consumer.assign(
            [TopicPartition(topic, part, 0) for topic in (predictions, dead_letters) for part in range(partitions)]
        )

    def run(self) -> None:
        while not self._stopping.is_set():
            for message in self._consumer.consume(500, 0.2):
                if message.error() is None:
                    self._take(message)
        self._consumer.close()

    def _take(self, message: Message) -> None:
        value = json.loads(message.value() or b"")
        if message.topic() == self._predictions:
            self.seen.predictions.setdefault(value["event_id"], []).append((value["id"], value["label"]))
        else:
            source = value["source"]
            at = Coordinates(source["topic"], source["partition"], source["offset"])
            self.seen.dead.setdefault(at, []).append(value)

    def wait_for(self, sent: Sent, timeout_s: float) -> None:
        """Wait until every input has an end, or the time is over."""
        end_s = time.monotonic() + timeout_s
        good = set(sent.good.values())
        while time.monotonic() < end_s and not (
            good <= self.seen.predictions.keys() and sent.bad.keys() <= self.seen.dead.keys()
        ):
            time.sleep(0.2)

    def grows(self, within_s: float) -> bool:
        """Whether another prediction comes within so many seconds; what was under way at first does not count."""
        time.sleep(0.5)
        before, end_s = len(self.seen.predictions), time.monotonic() + within_s
        while time.monotonic() < end_s:
            if len(self.seen.predictions) > before:
                return True
            time.sleep(0.05)
        return False

    def close(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self.join(10)


class Faults:
    """Hits the worker under a supervisor, again and again, at random moments."""

    def __init__(self, supervisor: subprocess.Popen[bytes], outputs: Callable[[], int], seed: int) -> None:
        """`outputs` counts what has come out so far: a worker works when it grows."""
        self._supervisor = supervisor
        self._outputs = outputs
        self._rng = random.Random(seed)
        self._hit: set[int] = set()
        self.done: Counter[str] = Counter()

    def hit(self, number: signal.Signals, after_s: tuple[float, float]) -> None:
        """Wait until a worker that was not hit yet has worked for a random while, then send it the signal."""
        self.another_worker()
        end_s, before = time.monotonic() + 60, self._outputs()
        while self._outputs() == before:
            assert time.monotonic() < end_s, "the worker came back but does not work"
            time.sleep(0.05)
        time.sleep(self._rng.uniform(*after_s))
        pid = self.another_worker()  # looked up anew: at its start a supervisor has other children, for moments
        self._hit.add(pid)
        os.kill(pid, number)
        self.done[number.name] += 1

    def another_worker(self) -> int:
        """Wait until there is a worker that was not hit; its process id."""
        end_s = time.monotonic() + 60
        while (pid := self.child()) is None or pid in self._hit:
            assert time.monotonic() < end_s, "the worker did not come back within 60 s"
            time.sleep(0.05)
        return pid

    def child(self) -> int | None:
        """The process id of the supervised worker."""
        pid = self._supervisor.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None


def configure(bootstrap: str, kind: Literal["TOPIC", "BROKER"], name: str, **values: object) -> None:
    """Set dynamic settings of a topic or a broker, dots written as underscores; the others stay."""
    entries = [
        ConfigEntry(key.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET)
        for key, value in values.items()
    ]
    resource = ConfigResource(ConfigResource.Type[kind], name, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result()


def start(arguments: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program of the project, its output in a file."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **env}, stdout=out, stderr=subprocess.STDOUT
        )


def stop(process: subprocess.Popen[bytes], timeout_s: float = 45) -> int:
    """End a program with SIGTERM; SIGKILL when it does not listen."""
    process.terminate()
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
