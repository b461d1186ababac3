"""The watch over drift as a process of its own beside real Kafka: killed, and begun again."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from models.classifier import Classifier
from models.tasks import load_task
from streams.broker import KafkaBroker
from streams.settings import TOPICS, Settings, load_settings
from streams.topics import create_topics
from tests.kafka.harness import start, stop
from tests.streams.wire import free_port, read_all
from tests.tiny_releases import WORDS, make_tiny_release
from tests.whereabouts import SURE

A_DAY = 60
WAIT_S = 90.0

pytestmark = pytest.mark.kafka


def configured(folder: Path, bootstrap: str, release: Path) -> Settings:
    run = f"drift-{os.getpid()}"
    lines = ["[broker]", f'bootstrap = "{bootstrap}"', f'group = "{run}"', "[topics]", "partitions = 2"]
    lines += [f'{name} = "{run}-{name}"' for name in TOPICS]
    lines += ["[drift]", f"labels_a_day = {A_DAY}", "look_every_s = 1", f"port = {free_port()}"]
    lines += ["[models]", f'releases.risk = "{release}"']
    lines += ["[sources.transactions]", f'topic = "{run}-transactions"']
    lines += ["[sources.news]", "enabled = false", "[sources.chat]", "enabled = false"]
    (folder / "streamgauge.toml").write_text("\n".join(lines))
    settings = load_settings(folder / "streamgauge.toml")
    assert {outcome.state for outcome in create_topics(settings)} == {"created"}
    return settings


class Scored:
    """Events, and the predictions of a release on them, at real Kafka."""

    def __init__(self, settings: Settings, release: Path) -> None:
        self.settings = settings
        self._classifier = Classifier.load(release, load_task("risk"), "cpu", "onnxruntime-fp32", 1)
        self._producer = Producer({"bootstrap.servers": settings.broker.bootstrap, **SURE})
        self._sent = 0

    def send(self, *words: str, count: int) -> None:
        topic, labels = self.settings.sources["transactions"].topic, self._classifier.labels
        texts = [
            f"{words[turn % len(words)]} number {7 * turn % 300}" for turn in range(self._sent, self._sent + count)
        ]
        for text, row in zip(texts, self._classifier.classify(texts).tolist(), strict=True):
            best = max(range(len(labels)), key=row.__getitem__)
            self._producer.produce(topic, orjson.dumps({"id": f"e{self._sent}", "text": text}), partition=0)
            self._producer.produce(self.settings.topics.predictions, orjson.dumps({
                "id": f"{topic}/0/{self._sent}/risk", "event_id": f"e{self._sent}", "task": "risk",
                "release": self._classifier.release, "label": labels[best], "score": row[best],
                "scores": dict(zip(labels, row, strict=True)), "out_of_scope": False,
                "source": {"name": "transactions", "topic": topic, "partition": 0, "offset": self._sent},
            }), partition=self._sent % 2)  # fmt: skip
            self._sent += 1
        assert self._producer.flush(30) == 0

    def read(self, topic: str) -> list[dict[str, Any]]:
        return [orjson.loads(one.value() or b"") for one in read_all(self.settings.broker.bootstrap, topic, 2)]


def until(true: Callable[[], bool], log: Path) -> None:
    end_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.2)


def test_a_watch_that_is_killed_goes_on_where_it_was(kafka: KafkaBroker, tmp_path: Path) -> None:
    release = make_tiny_release("risk", tmp_path, examples_a_label=300)
    settings, log = configured(tmp_path, kafka.bootstrap, release), tmp_path / "watch.log"
    names, scored = settings.topics, Scored(settings, release)
    env = {"STREAMGAUGE_CONFIG": str(tmp_path / "streamgauge.toml"), "STREAMGAUGE_HOME": str(tmp_path / "home")}
    command = ["-m", "streams.cli", "drift", "watch"]

    scored.send(*WORDS, count=300)
    watch = start(command, env, log)
    try:
        until(lambda: "metrics on" in log.read_text(), log)
        scored.send(*WORDS[6:], count=900)  # all of one label
        until(lambda: len(scored.read(names.drift)) == 1, log)
    finally:
        watch.kill()
        watch.wait()
    before = scored.read(names.review)
    watch = start(command, env, log)
    try:
        until(lambda: log.read_text().count("metrics on") == 2, log)
        scored.send(*WORDS, count=4000)  # more of the usual than of anything else
        until(lambda: len(scored.read(names.drift)) == 2, log)
    finally:
        stop(watch)

    opened, resolved = scored.read(names.drift)
    assert (opened["state"], resolved["state"], resolved["id"]) == ("open", "resolved", opened["id"])
    assert "label" in [one["quantity"] for one in opened["moved"]]
    requests = scored.read(names.review)
    assert len(before) <= len(requests) <= A_DAY
    assert not [one for one, count in Counter(one["id"] for one in requests).items() if count > 1]
    assert all(one["text"] and one["reason"] in ("informative", "random") for one in requests)
