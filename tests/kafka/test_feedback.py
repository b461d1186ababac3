"""A collector of feedback killed at every step on real Kafka: no record lost, none counted twice."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from models.learning.opinions import text_key
from models.learning.store import DatasetStore
from streams.broker import KafkaBroker
from streams.learning.checkpoint import load_checkpoint
from streams.learning.collector import Collector
from streams.topics import create_topics
from tests.crash.collecting import MUTATION, POINTS
from tests.crash.faults import STRUCK, Fault
from tests.kafka.harness import start
from tests.streams.learning.world import LABELS, World, settings_for, told, written
from tests.streams.wire import committed

pytestmark = pytest.mark.kafka

PARTITIONS = 2
TASKS = ("risk", "scam")
ROUND = 24  # records of feedback that each run finds new, of each partition
KEPT = 3


@dataclass
class Oracle:
    """What should come of what was sent, worked out from the records alone."""

    said: list[tuple[tuple[int, int], dict[str, Any], str]] = field(default_factory=list)  # position, record, key
    junk: list[tuple[int, int]] = field(default_factory=list)

    def labels(self) -> dict[tuple[str, str, str], str]:
        """By task, key and annotator: the label that counts."""
        last = dict[tuple[str, str, str], tuple[str, tuple[int, int], str | None]]()
        for at, one, key in self.said:
            if key and one.get("label") in (*LABELS, None):
                slot = (one["task"], key, one["annotator"])
                last[slot] = max(last.get(slot, ("", (0, 0), None)), (one["labelled_at"], at, one.get("label") or ""))
        return {slot: label for slot, (_, _, label) in last.items() if label}

    def records(self, task: str) -> int:
        """How many records name a task."""
        return sum(one["task"] == task for _, one, _ in self.said)

    def waiting(self, task: str) -> int:
        """How many of them are on an event that nobody has scored."""
        return sum(one["task"] == task and not key for _, one, key in self.said)

    def letters(self, topic: str) -> dict[str, str]:
        """The error of each dead letter, by its id."""
        bad = {at: "UnknownLabel" for at, one, _ in self.said if one.get("label") not in (*LABELS, None)}
        found = bad | dict.fromkeys(self.junk, "NotJson")
        return {f"{topic}/{part}/{offset}/dead-letter": error for (part, offset), error in found.items()}


class Desk:
    """A world whose feedback is collected by processes of their own."""

    def __init__(self, kafka: KafkaBroker, folder: Path, name: str) -> None:
        settings = settings_for(kafka.bootstrap, folder, name, TASKS, keep_versions=KEPT)
        topics = settings.topics.model_copy(update={"partitions": PARTITIONS})
        settings = settings.model_copy(update={"topics": topics})
        assert not [outcome for outcome in create_topics(settings) if outcome.todo]
        self.world, self.oracle = World(settings), Oracle()
        self.home, self.log = folder / "home", folder / "collector.log"
        self.stores = {task: DatasetStore(task, self.home / "learning") for task in TASKS}
        self._config = written(settings, folder)
        self._rng = random.Random(7)
        self._events: list[str] = []

    def say(self) -> None:
        """A round of feedback of every kind on both partitions, on events of this round and of those before."""
        self._events += [one.removesuffix("/risk") for part in range(PARTITIONS) for one in self.world.events(3, part)]
        for part in range(PARTITIONS):
            made = [self._record() for _ in range(ROUND)]
            offsets = self.world.feedback(*(record for record, _ in made), partition=part)
            for offset, (record, key) in zip(offsets, made, strict=True):
                if isinstance(record, bytes):
                    self.oracle.junk.append((part, offset))
                else:
                    self.oracle.said.append(((part, offset), record, key))

    def _record(self) -> tuple[Any, str]:
        rng, task = self._rng, self._rng.choice(TASKS)
        label = rng.choices([*LABELS, None, "unheard"], [6, 6, 3, 1])[0]
        event = rng.choice(self._events[-12:])
        subject, key = rng.choices(
            [
                ({"prediction_id": f"{event}/{task}"}, event),
                ({"event_id": "e" + "-".join(event.split("/")[1:])}, event),
                ({"text": f"own {(number := rng.randrange(20))}"}, text_key(f"own {number}")),
                ({"event_id": "nobody"}, ""),
            ],
            [6, 4, 3, 1],
        )[0]
        said = told(label, rng.choice(["ann", "bob", "cat"]), rng.randrange(10), task=task, **subject)
        if not key:
            said["label"], key = LABELS[0], ""  # so that it can only wait
            said.pop("action", None)
        return (b"no feedback", "") if rng.random() < 0.04 else (said, key)

    def collect(self, fault: Fault | None = None, mutation: str | None = None) -> int:
        """A process that collects once; its exit code. With a fault, that it struck is seen to."""
        env = {"STREAMGAUGE_HOME": str(self.home), "STREAMGAUGE_CONFIG": str(self._config)}
        env |= (fault.environment() if fault else {}) | ({MUTATION: mutation} if mutation else {})
        before = self.log.stat().st_size if self.log.exists() else 0
        process: subprocess.Popen[bytes] = start(["-m", "tests.crash.collecting"], env, self.log)
        code = process.wait(120)
        said = self.log.read_bytes()[before:].decode()
        assert fault is None or (STRUCK in said and code == -signal.SIGKILL), said[-2000:]
        assert fault is not None or code == 0, said[-3000:]
        return code

    def nothing_half_done(self) -> None:
        """What a killed process leaves: versions that can be read, and no offset committed beyond what is durable."""
        for store in self.stores.values():
            for version in store.numbers():
                store.contents(version)
        checkpoint = load_checkpoint(self.home / "learning")
        settings = self.world.settings
        group = f"{settings.broker.group}-feedback"
        for part, offset in enumerate(
            committed(settings.broker.bootstrap, group, settings.topics.feedback, PARTITIONS)
        ):
            assert offset <= (checkpoint.read.offsets[part] if checkpoint else 0)

    def verdict(self) -> dict[str, int]:
        """How many labels are lost, wrong or too many, and how many records were not counted once."""
        found, counted, waiting = dict[tuple[str, str, str], str](), 0, 0
        for task, store in self.stores.items():
            head = store.head()
            assert head is not None
            found |= {(task, one.key, one.annotator): one.label for one in store.opinions()}
            counted += sum(head.ends.values()) + head.waiting - self.oracle.records(task)
            waiting += head.waiting - self.oracle.waiting(task)
        wanted = self.oracle.labels()
        return {
            "labels": len(wanted),
            "lost": len(wanted.keys() - found.keys()),
            "wrong": sum(found[slot] != label for slot, label in wanted.items() if slot in found),
            "too_many": len(found.keys() - wanted.keys()),
            "counted_too_often": counted,
            "waiting_too_many": waiting,
        }


@pytest.fixture
def desk(kafka: KafkaBroker, tmp_path: Path, unique: Callable[[str], str]) -> Desk:
    return Desk(kafka, tmp_path, unique("feedback"))


def test_nothing_is_lost_or_counted_twice_wherever_the_collector_is_killed(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.say()
    desk.collect()
    for point, (_, passing) in POINTS.items():
        desk.say()
        desk.collect(Fault(point, passing, "kill"))
        desk.nothing_half_done()
    desk.collect()
    desk.nothing_half_done()
    found = desk.verdict()
    with capsys.disabled():
        print(f"\n{len(POINTS)} kills, {len(desk.oracle.said)} records: {found}")
    assert found.pop("labels") > 100
    assert not any(found.values())
    topic = desk.world.settings.topics.feedback
    assert desk.world.letters(PARTITIONS) == desk.oracle.letters(topic)
    checkpoint = load_checkpoint(desk.home / "learning")
    assert checkpoint is not None and checkpoint.refused == {"NotJson": len(desk.oracle.junk)}
    for store in desk.stores.values():
        assert len(store.numbers()) == KEPT
    with Collector(desk.world.settings, tmp_path / "other") as undisturbed:
        undisturbed.collect()
    for task, store in desk.stores.items():
        other = DatasetStore(task, tmp_path / "other")
        assert store.opinions() == other.opinions()


@pytest.mark.parametrize(
    ("mutation", "point", "seen"),
    [
        ("counts-again", "before-the-checkpoint", "counted_too_often"),
        ("checkpoint-first", "in-a-write", "lost"),
    ],
)
def test_the_runs_see_what_a_collector_without_a_rule_does(desk: Desk, mutation: str, point: str, seen: str) -> None:
    desk.say()
    desk.collect(Fault(point, POINTS[point][1], "kill"), mutation)
    desk.collect(mutation=mutation)
    if seen == "lost":
        assert sum(len(store.opinions()) for store in desk.stores.values() if store.numbers()) < len(
            desk.oracle.labels()
        )
    else:
        assert desk.verdict()[seen] > 0


def test_what_retention_took_is_counted_and_stops_nothing(desk: Desk, kafka: KafkaBroker, tmp_path: Path) -> None:
    settings, folder = desk.world.settings, tmp_path / "other"
    old, labelled, new = desk.world.events(3)
    topic, feedback = settings.sources["transactions"].topic, settings.topics.feedback
    desk.world.feedback(told(prediction_id=labelled), told(text="before"))
    with Collector(settings, folder) as collector:
        collector.collect()
    desk.world.feedback(told(text="never read"), told(text="nor this"), told(prediction_id=old))
    desk.world.feedback(told("legitimate", "bob", prediction_id=labelled), told(prediction_id=new))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for deleted in admin.delete_records([TopicPartition(topic, 0, 2), TopicPartition(feedback, 0, 4)]).values():
        deleted.result()
    with Collector(settings, folder) as collector:
        done = collector.collect()
    assert (done.lost, done.records) == (2, 3)
    assert done.ends["risk"] == {"event_gone": 1, "conflicting": 1, "labelled": 1}
    assert {(one.text, one.annotator) for one in DatasetStore("risk", folder).opinions()} == {
        ("text 0-1", "ann"), ("text 0-1", "bob"), ("text 0-2", "ann"), ("before", "ann"),
    }  # fmt: skip


def test_a_topic_that_is_made_anew_is_read_from_its_beginning(desk: Desk, kafka: KafkaBroker) -> None:
    desk.say()
    desk.collect()
    versions = {task: store.numbers() for task, store in desk.stores.items()}
    name = desk.world.settings.topics.feedback
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.delete_topics([name])[name].result(30)
    while name in admin.list_topics(timeout=10).topics:
        pass
    create_topics(desk.world.settings)
    for part in range(PARTITIONS):
        desk.world.sent.pop((name, part))
    desk.world.feedback(told(text="said anew", task="risk"), told(text="said anew", task="scam"))
    desk.collect()
    for task, store in desk.stores.items():
        assert store.numbers() == [*versions[task], versions[task][-1] + 1]
        assert "said anew" in {one.text for one in store.opinions()}
