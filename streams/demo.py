"""The demo: an embedded broker, a real worker, the shipped sample events, and a live view of what comes out.

The samples cover two hours of event time and are played over and over, each round two hours later than the last, with
every 50th record broken on purpose. Each record sent is followed by its coordinates until its outcome is seen.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from streams.children import free_ports
from streams.embedded import embedded_broker
from streams.events import Coordinates
from streams.exits import BrokerUnavailable
from streams.publishing import undelivered
from streams.replay import event_time_s
from streams.settings import Settings
from streams.supervisor import spawn, stop
from streams.topics import wanted_topics

SAMPLES = Path(__file__).with_name("samples")
EVENTS_PER_S = 60.0
OUTPUTS = ("predictions", "alerts", "routes", "review", "dead_letters")
_ROUND_S = 7200.0  # event time of one round of the samples
_ROUNDS_BACK = 360  # the first round lies so many rounds before now
_BAD_EVERY = 50
_BAD = (b"\xff\xfe not utf-8", b"{'not': 'json'}", b'["a list"]', b'{"id": "x", "ts": "2026-03-02", "text": "   "}')
_DRAIN_S = 20.0
_SHOWN = 8  # latest alerts and routes
_READY_S = 90.0


@dataclass
class Tally:
    """What the demo has seen so far."""

    sent: dict[Coordinates, float] = field(default_factory=dict)  # not answered yet: when it was acknowledged
    outputs: Counter[str] = field(default_factory=Counter)
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=20_000))
    alerts: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=_SHOWN))
    routes: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=_SHOWN))
    events: int = 0
    early: set[Coordinates] = field(default_factory=set)  # answered before our own acknowledgement was served
    _acknowledged: dict[tuple[str, int], int] = field(default_factory=dict)  # highest offset by topic and partition

    def on_sent(self, error: KafkaError | None, message: Message) -> None:
        """Note a record the broker has acknowledged; one it has not counts as never sent."""
        if undelivered(error, message) is not None:
            return
        at = Coordinates.of(message)
        self.events += 1
        self._acknowledged[at[:2]] = max(at.offset, self._acknowledged.get(at[:2], -1))
        if at in self.early:
            self.early.discard(at)
        else:
            self.sent[at] = time.time()

    def on_output(self, output: str, value: Mapping[str, Any]) -> None:
        """Note an output; a prediction or dead letter answers its input."""
        self.outputs[output] += 1
        if output == "alerts":
            self.alerts.append(value)
        elif output == "routes":
            self.routes.append(value)
        if output not in ("predictions", "dead_letters"):
            return
        source = value["source"]
        at = Coordinates(source["topic"], source["partition"], source["offset"])
        since = self.sent.pop(at, None)
        if since is not None:
            self.latencies_ms.append(1000 * (time.time() - since))
        elif at.offset > self._acknowledged.get(at[:2], -1):
            self.early.add(at)

    def percentile_ms(self, share: float) -> float:
        """Latency from the broker's acknowledgement of an input to its outcome in our hands."""
        ordered = sorted(self.latencies_ms)
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0

    def summary(self) -> dict[str, float]:
        """The demo's closing figures."""
        return {
            "events": self.events,
            **{name: self.outputs[name] for name in OUTPUTS},
            "p50_ms": self.percentile_ms(0.50),
            "p99_ms": self.percentile_ms(0.99),
            "lost": len(self.sent),
        }


@dataclass
class Demo:
    """A running demo; `step` moves it on by a fraction of a second."""

    settings: Settings
    bootstrap: str
    worker: subprocess.Popen[bytes]
    metrics_url: str
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 2, "log_level": 0})
        self._consumer = _reader(self.bootstrap, self.settings)
        self._outputs = {getattr(self.settings.topics, name): name for name in OUTPUTS}
        self._events = sample_events(self.settings, time.time())
        self._next_s = time.monotonic()

    def step(self, send: bool) -> None:
        """Send what is due and take in what has come out; about a tenth of a second."""
        if (code := self.worker.poll()) is not None:
            raise RuntimeError(f"the worker ended with code {code}; its messages are above")
        end_s = time.monotonic() + 0.1
        while time.monotonic() < end_s:
            while send and self._next_s <= time.monotonic():
                topic, key, value = next(self._events)
                self._producer.produce(topic, value, key, on_delivery=self.tally.on_sent)
                self._next_s += 1 / EVENTS_PER_S
            self._producer.poll(0)
            for message in self._consumer.consume(500, 0.02):
                if message.error() is None:
                    self.tally.on_output(self._outputs[message.topic() or ""], orjson.loads(message.value() or b""))

    def wait_ready(self) -> None:
        """Send one harmless event and wait for its prediction: the worker is up."""
        started_s = time.monotonic()
        topic, key, value = next(self._events)
        self._producer.produce(topic, value, key, on_delivery=self.tally.on_sent)
        while not self.tally.latencies_ms:
            if time.monotonic() - started_s > _READY_S:
                raise BrokerUnavailable(f"the worker did not answer within {_READY_S:.0f} s")
            self.step(send=False)
        self.tally.latencies_ms.clear()
        self._next_s = time.monotonic()

    def drain(self) -> None:
        """Wait until everything sent is answered, for a bounded time."""
        self._producer.flush(5)
        end_s = time.monotonic() + _DRAIN_S
        while self.tally.sent and time.monotonic() < end_s:
            self.step(send=False)
        self.step(send=False)


def sample_events(settings: Settings, now_s: float) -> Iterator[tuple[str, bytes | None, bytes]]:
    """Endless (topic, key, value): all samples by time, round after round, some records broken."""
    rng = random.Random(7)  # noqa: S311 - which record is broken need not be a secret
    rows = sorted(_sample_rows(settings), key=lambda row: row[0])
    start_s, sent = rows[0][0], 0
    for turn in itertools.count():
        shift_s = now_s - (_ROUNDS_BACK - turn % _ROUNDS_BACK) * _ROUND_S - start_s
        for at_s, topic, body in rows:
            sent += 1
            if sent % _BAD_EVERY == 0:
                sent += 1
                yield topic, None, rng.choice(_BAD)
            moved = datetime.fromtimestamp(at_s + shift_s, UTC).isoformat(timespec="milliseconds")
            yield topic, body["id"].encode(), orjson.dumps({**body, "id": f"{body['id']}-{turn}", "ts": moved})


def _sample_rows(settings: Settings) -> Iterator[tuple[float, str, dict[str, Any]]]:
    for name in ("news", "chat", "transactions"):
        path = SAMPLES / f"{name}.jsonl"
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            yield event_time_s(line, f"{path}:{number}"), settings.sources[name].topic, orjson.loads(line)


def _reader(bootstrap: str, settings: Settings) -> Consumer:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "streamgauge-demo", "enable.auto.commit": False,
         "fetch.wait.max.ms": 20, "log_level": 0}
    )  # fmt: skip
    parts = range(settings.topics.partitions)
    consumer.assign([TopicPartition(getattr(settings.topics, name), part, 0) for name in OUTPUTS for part in parts])
    return consumer


def run_demo(
    settings: Settings,
    releases: Mapping[str, Path],
    seconds: float | None,
    show: Callable[[Demo, float], None],
) -> Tally:
    """Run the demo for some seconds of events (None: until interrupted) and stop everything cleanly.

    Args:
        settings: the shipped ones, or the user's.
        releases: release directory by task.
        seconds: how long to send events.
        show: called about ten times a second with the demo and the seconds since its start.
    """
    topics = {one.name: one.partitions for one in wanted_topics(settings)}
    with embedded_broker(topics) as broker:
        (port,) = free_ports(1)
        worker = spawn(_worker_environment(broker.bootstrap, port, releases))
        try:
            demo = Demo(settings, broker.bootstrap, worker, f"http://127.0.0.1:{port}/metrics")
            demo.wait_ready()
            started_s = time.monotonic()
            try:
                while seconds is None or time.monotonic() - started_s < seconds:
                    demo.step(send=True)
                    show(demo, time.monotonic() - started_s)
            except KeyboardInterrupt:
                pass
            demo.drain()
        finally:
            stop([worker], settings.worker.shutdown_s + 5)
    return demo.tally


def _worker_environment(bootstrap: str, metrics_port: int, releases: Mapping[str, Path]) -> dict[str, str]:
    return {
        **os.environ,
        "STREAMGAUGE_BROKER__BOOTSTRAP": bootstrap,
        "STREAMGAUGE_BROKER__TLS": "false",
        "STREAMGAUGE_BROKER__FETCH_MAX_WAIT_MS": "10",  # the embedded broker holds an empty fetch for all of it
        "STREAMGAUGE_BROKER__SESSION_TIMEOUT_S": "6",
        "STREAMGAUGE_METRICS__PORT": str(metrics_port),
        **{f"STREAMGAUGE_MODELS__RELEASES__{task.upper()}": str(path) for task, path in releases.items()},
    }
