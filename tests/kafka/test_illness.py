"""Fifty illnesses of the model while events flow through real Kafka: nothing lost, no dead letter but the poison."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Message, Producer

from models.releases import MODEL
from streams.broker import KafkaBroker
from streams.settings import TOPICS, Settings, load_settings
from streams.topics import create_topics
from tests.kafka.harness import Reader, Sent, start, stop
from tests.streams.handmade import make_release
from tests.streams.wire import free_port
from tests.whereabouts import stored_at

ILLNESSES, PER_S, POISON_SHARE, SEED = 50, 150, 0.01, 17
HEADS = {"sentiment": ("negative", "neutral"), "intent": ("ask", "tell"), "risk": ("benign", "fraud")}
STATES = ("error", "flaky", "memory", "slow", "damaged")  # the last: every run fails, and the release's file is broken
WORDS = ("falls", "opens", "rises", "rent", "unknown")

pytestmark = pytest.mark.kafka


class Patient:
    """The release and the file that says how its chosen runtime does."""

    def __init__(self, folder: Path) -> None:
        self.release = make_release(folder / "release", HEADS)
        self.file = folder / "state"
        self._whole = (self.release / MODEL).read_bytes()
        self.is_("well")

    def is_(self, state: str) -> None:
        """Both files are replaced whole: the worker reads them at any moment."""
        broken = state == "damaged"
        self._write(self.release / MODEL, self._whole[: 100 if broken else None])
        self._write(self.file, b"error" if broken else state.encode())

    def _write(self, path: Path, content: bytes) -> None:
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(content)
        new.replace(path)


def configured(folder: Path, bootstrap: str, release: Path) -> Settings:
    run = f"ill-{os.getpid()}"
    outputs = TOPICS
    lines = ["[broker]", f'bootstrap = "{bootstrap}"', f'group = "{run}"', "session_timeout_s = 6", "[topics]"]
    lines += [f'{name} = "{run}-{name}"' for name in outputs]
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

    def __init__(self, settings: Settings, poison_share: float = POISON_SHARE) -> None:
        super().__init__(daemon=True)
        self._poison_share = poison_share
        self.sent = Sent()
        self._topics = [source.topic for source in settings.active_sources.values()]
        self._address = settings.broker.bootstrap
        self._producer = Producer({"bootstrap.servers": self._address, "enable.idempotence": True})
        self._rng = random.Random(SEED)
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


def wait_for_ready(port: int) -> None:
    """Until the chosen runtime serves again: only then is the next illness one."""
    end_s = time.monotonic() + 60
    while True:
        with suppress(OSError):
            if json.loads(asked(port, "ready"))["status"] == "ready":
                return
        assert time.monotonic() < end_s, "the model did not come back within 60 s"
        time.sleep(0.05)


def test_fifty_illnesses_lose_nothing_and_blame_no_event(kafka: KafkaBroker, tmp_path: Path) -> None:
    patient, rng, done = Patient(tmp_path), random.Random(SEED), Counter[str]()
    settings = configured(tmp_path, kafka.bootstrap, patient.release)
    env = {"STREAMGAUGE_CONFIG": str(tmp_path / "streamgauge.toml"), "SICK_FILE": str(patient.file)}
    worker = start(["-m", "tests.streams.sick_worker"], env, tmp_path / "worker.log")
    log = tmp_path / "worker.log"
    sender = Sender(settings)
    with reading(settings) as reader:
        try:
            sender.start()
            assert reader.grows(90), log.read_text()
            for _ in range(ILLNESSES):
                state = rng.choice(STATES)
                patient.is_(state)
                time.sleep(rng.uniform(0.2, 1.5))
                patient.is_("well")
                time.sleep(rng.uniform(0.1, 0.6))
                done[state] += 1
                wait_for_ready(settings.metrics.port)
            page = asked(settings.metrics.port, "metrics")
            sent = sender.end()
            reader.wait_for(sent, 120)
        finally:
            patient.is_("well")
            code = stop(worker)
    seen = reader.seen
    lost = set(sent.good.values()) - seen.predictions.keys()
    print(
        f"\n{len(sent.good)} good events and {len(sent.bad)} poisoned, illnesses {dict(done)}: lost {len(lost)}, "
        f"dead letters {len(seen.dead)}, duplicates {seen.duplicates()}, "
        f"times held {log.read_text().count('texts are held')}"
    )
    assert not lost
    assert seen.dead.keys() == sent.bad.keys(), "an illness made a dead letter, or hid one"
    assert seen.duplicates() == 0
    assert all(letter["stage"] == "scoring" for letters in seen.dead.values() for letter in letters)
    assert code == 0
    illnesses = re.search(r'model_illnesses_total\{runtime="chosen".*\} (\S+)', page)
    assert illnesses is not None and float(illnesses[1]) >= done["error"] + done["damaged"] > 10
