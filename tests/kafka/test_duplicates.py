"""When workers are killed consumers get repetitions: with the same ids, within a bound, and there is a recipe."""

from __future__ import annotations

import json
import signal
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition

from streams.broker import KafkaBroker
from streams.dedupe import Deduplicator
from streams.settings import TOPICS, Settings, load_settings
from streams.topics import create_topics
from tests.kafka.harness import Faults, Sent, send_events, start, stop

EVENTS, SECONDS, BAD_SHARE, KILLS, PARTITIONS = 4000, 30.0, 0.02, 3, 2
SLICE_EVENTS, SLICES, COMMIT_S = 20, 8, 1.0
WINDOW = 1024  # in flight are 160 at most; the rest is for what is finished within a second or two

pytestmark = pytest.mark.kafka


class Repeated(NamedTuple):
    """An output that came again: when, and where its event lies."""

    at_s: float
    partition: int
    offset: int


class Desk(threading.Thread):
    """A consumer of predictions and dead letters that follows the recipe; it keeps what it acted upon, and how often
    each output came. `reached_back` is how far a repetition lay behind its partition's newest, in source offsets."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self.acted: list[str] = []
        self.events: set[str] = set()
        self.came: Counter[str] = Counter()
        self.repeated: list[Repeated] = []
        self.reached_back = 0
        self._newest: Counter[int] = Counter()
        self._stopping = threading.Event()
        topics = (settings.topics.predictions, settings.topics.dead_letters)
        self._seen = {topic: Deduplicator(WINDOW) for topic in topics}
        self._consumer = Consumer(
            {"bootstrap.servers": settings.broker.bootstrap, "group.id": "desk", "enable.auto.commit": False}
        )
        self._consumer.assign([TopicPartition(topic, part, 0) for topic in topics for part in range(PARTITIONS)])

    def run(self) -> None:
        while not self._stopping.is_set():
            for message in self._consumer.consume(500, 0.2):
                if message.error() is None:
                    self._take(self._seen[message.topic() or ""], json.loads(message.value() or b""))
        self._consumer.close()

    def _take(self, seen: Deduplicator, output: dict[str, Any]) -> None:
        partition, offset = output["source"]["partition"], output["source"]["offset"]
        self.came[output["id"]] += 1
        if self.came[output["id"]] > 1:
            self.repeated.append(Repeated(time.monotonic(), partition, offset))
            self.reached_back = max(self.reached_back, self._newest[partition] - offset)
        self._newest[partition] = max(self._newest[partition], offset)
        if not seen.before(output):
            self.acted.append(output["id"])
            self.events.add(output.get("event_id", output["id"]))
            seen.remember(output)

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)


def configuration(folder: Path, kafka: KafkaBroker, tiny: dict[str, Path]) -> Path:
    """Commits are rarer than by default, so that every kill finds something uncommitted."""
    run = f"duplicates-{uuid.uuid4().hex[:8]}"
    lines = ["[broker]", f'bootstrap = "{kafka.bootstrap}"', f'group = "{run}"', "session_timeout_s = 6"]
    lines += [f"commit_interval_ms = {round(1000 * COMMIT_S)}", "[topics]", f"partitions = {PARTITIONS}"]
    lines += [f'{output} = "{run}-{output}"' for output in TOPICS]
    lines += ["[batching]", f"max_slice_events = {SLICE_EVENTS}", f"max_slices_in_flight = {SLICES}"]
    lines += ["[metrics]", "port = 0", "[models]", 'device = "cpu"', f'releases.intent = "{tiny["intent"]}"']
    lines += ["[sources.chat]", f'topic = "{run}-chat"']
    lines += ["[sources.news]", "enabled = false", "[sources.transactions]", "enabled = false"]
    file = folder / "streamgauge.toml"
    file.write_text("\n".join(lines))
    assert not [outcome for outcome in create_topics(load_settings(file)) if outcome.todo]
    return file


def test_a_consumer_that_follows_the_recipe_acts_on_each_output_once(
    kafka: KafkaBroker, tiny_releases: dict[str, Path], tmp_path: Path
) -> None:
    file = configuration(tmp_path, kafka, tiny_releases)
    settings = load_settings(file)
    desk = Desk(settings)
    desk.start()
    supervisor = start(["-m", "streams.cli", "worker", "--config", str(file)], {}, tmp_path / "worker.log")
    faults = Faults(supervisor, lambda: len(desk.came), seed=7)
    sent, kills = list[Sent](), list[tuple[float, dict[int, int]]]()
    topic = settings.sources["chat"].topic
    parts = [TopicPartition(topic, part) for part in range(PARTITIONS)]
    group = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": settings.broker.group})
    sender = threading.Thread(
        target=lambda: sent.append(send_events(kafka.bootstrap, [topic], EVENTS, BAD_SHARE, SECONDS, seed=7)),
        daemon=True,
    )
    try:
        sender.start()
        for _ in range(KILLS):
            faults.hit(signal.SIGKILL, (1.5, 4.0))
            kills.append((time.monotonic(), {one.partition: one.offset for one in group.committed(parts, 60)}))
        faults.another_worker()  # one that can be told to stop
        sender.join(SECONDS + 90)
        assert sent, "the events could not all be sent"
        end_s = time.monotonic() + 120
        while len(desk.came) < EVENTS or sum(one.offset for one in group.committed(parts, 60)) < EVENTS:
            assert time.monotonic() < end_s, f"{len(desk.came)} of {EVENTS} events came out and are committed"
            time.sleep(0.2)
    finally:
        code = stop(supervisor)
        desk.stop()
        group.close()
    print(
        f"\n{EVENTS} events, {KILLS} kills: {len(desk.repeated)} outputs came again, from at most {desk.reached_back} "
        f"source offsets back (window {WINDOW}); acted upon twice: {len(desk.acted) - len(set(desk.acted))}"
    )
    assert code == 0
    assert desk.repeated, "nothing came twice: this proves nothing"
    assert len(desk.acted) == len(set(desk.acted)) == EVENTS
    good, bad = set(sent[0].good.values()), {f"{at}/dead-letter" for at in sent[0].bad}
    assert desk.events == good | bad
    assert desk.reached_back <= WINDOW
    for one in desk.repeated:
        at_kill = [offsets for killed_s, offsets in kills if killed_s <= one.at_s][-1]
        assert one.offset >= at_kill[one.partition], "what was committed came again"
