"""Events that flow through a worker on real Kafka, each with a number, and the reader of what becomes of them."""

from __future__ import annotations

import json
import random
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

from streams.settings import TOPICS, Settings, load_settings
from streams.topics import create_topics
from tests.kafka.harness import Reader, Sent
from tests.streams.wire import free_port
from tests.whereabouts import SURE, stored_at

PER_S = 150
HEADS = {"sentiment": ("negative", "neutral"), "intent": ("ask", "tell"), "risk": ("benign", "fraud")}
WORDS = ("falls", "opens", "rises", "rent", "unknown")


def configured(folder: Path, bootstrap: str, release: Path, run: str) -> Settings:
    """Settings of a run whose topics, made here, and group bear its name: a release serves the tasks of HEADS."""
    lines = ["[broker]", f'bootstrap = "{bootstrap}"', f'group = "{run}"', "session_timeout_s = 6", "[topics]"]
    lines += [f'{name} = "{run}-{name}"' for name in TOPICS]
    lines += ["[metrics]", f"port = {free_port()}", "[models]", 'device = "cpu"', 'runtime = "onnxruntime-fp32"']
    lines += ["[models.releases]"]
    lines += [f'{task} = "{release}"' for task in HEADS]
    for source in ("news", "chat", "transactions"):
        lines += [f"[sources.{source}]", f'topic = "{run}-{source}"']
    (folder / "streamgauge.toml").write_text("\n".join(lines))
    settings = load_settings(folder / "streamgauge.toml")
    assert {outcome.state for outcome in create_topics(settings)} == {"created"}
    return settings


class Sender(threading.Thread):
    """Sends numbered events over the topics in turn until told to stop."""

    def __init__(self, settings: Settings, seed: int, poison_share: float = 0.0) -> None:
        super().__init__(daemon=True)
        self._poison_share = poison_share
        self.sent = Sent()
        self._topics = [source.topic for source in settings.active_sources.values()]
        self._address = settings.broker.bootstrap
        self._producer = Producer({"bootstrap.servers": self._address} | SURE)
        self._rng = random.Random(seed)
        self._stopping = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stopping.wait(1 / PER_S):
            poison = self._rng.random() < self._poison_share
            text = " ".join(self._rng.choices(WORDS, k=self._rng.randint(1, 9))) + (" mule" if poison else "")
            value = json.dumps({"id": f"e{number}", "text": text}).encode()
            self._producer.produce(
                self._topics[number % 3], value, str(number).encode(), on_delivery=self._reporter(number, value, poison)
            )
            self._producer.poll(0)
            number += 1
        assert self._producer.flush(60) == 0

    def _reporter(self, number: int, value: bytes, poison: bool) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, message: Message) -> None:
            assert error is None, error
            at = stored_at(message, self._address)
            if poison:
                self.sent.bad[at] = value
            else:
                self.sent.good[at] = f"e{number}"

        return report

    def end(self) -> Sent:
        """Stop, and say what was sent."""
        self._stopping.set()
        self.join(90)
        return self.sent


@contextmanager
def reading(settings: Settings) -> Iterator[Reader]:
    topics = settings.topics
    reader = Reader(settings.broker.bootstrap, topics.predictions, topics.dead_letters, topics.partitions)
    reader.start()
    try:
        yield reader
    finally:
        reader.close()


def asked(port: int, what: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{what}", timeout=10) as answer:
        return str(answer.read(), "utf-8")
