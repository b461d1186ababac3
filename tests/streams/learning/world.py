"""Events, predictions and feedback on a broker, and what should come of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from streams.settings import Settings, load_settings
from tests.streams.wire import read_all
from tests.whereabouts import SURE

LABELS = ("fraud", "legitimate")
SCORED_AT_S = 1_795_000_000.0
TOLD_AT = "2026-11-02T{:02d}:00:00Z"


def settings_for(
    bootstrap: str, folder: Path, name: str, tasks: Sequence[str] = ("risk",), **feedback: float
) -> Settings:
    """Settings of one source and its tasks, with topics of the test's own."""
    files = {task: folder / f"{task}.toml" for task in tasks}
    for task, file in files.items():
        file.write_text(f'name = "{task}"\n' + "".join(f"[labels.{label}]\n" for label in LABELS))
    shipped = load_settings(env={})
    topics = {key: f"{name}-{value}" for key, value in shipped.topics.model_dump().items() if isinstance(value, str)}
    source = shipped.sources["transactions"].model_copy(update={"topic": f"{name}-transactions", "tasks": tuple(tasks)})
    return shipped.model_copy(
        update={
            "broker": shipped.broker.model_copy(update={"bootstrap": bootstrap, "group": name}),
            "topics": shipped.topics.model_copy(update=topics),
            "sources": {"transactions": source},
            "models": shipped.models.model_copy(update={"tasks": files}),
            "feedback": shipped.feedback.model_copy(update=feedback),
        }
    )


def written(settings: Settings, folder: Path) -> Path:
    """The same settings as a file, for a process of its own."""
    names = settings.topics
    lines = ["[broker]", f'bootstrap = "{settings.broker.bootstrap}"', f'group = "{settings.broker.group}"', "[topics]"]
    lines += [f'{key} = "{value}"' for key, value in names.model_dump().items() if isinstance(value, str)]
    lines += ["[feedback]", *(f"{key} = {value}" for key, value in settings.feedback.model_dump().items())]
    lines += ["[models]", *(f'tasks.{task} = "{file}"' for task, file in settings.models.tasks.items())]
    lines += ["[sources.transactions]", f'topic = "{settings.sources["transactions"].topic}"']
    lines += [f"tasks = {json.dumps(settings.sources['transactions'].tasks)}"]
    lines += ["[sources.news]", "enabled = false", "[sources.chat]", "enabled = false"]
    file = folder / "streamgauge.toml"
    file.write_text("\n".join(lines))
    return file


@dataclass
class World:
    """Sends to a broker, and reads what came of it."""

    settings: Settings
    sent: dict[tuple[str, int], int] = field(default_factory=dict)  # the next offset of each partition

    def send(self, topic: str, values: Sequence[object], partition: int = 0) -> list[int]:
        """Send values to a partition; returns their offsets."""
        producer = Producer({"bootstrap.servers": self.settings.broker.bootstrap, **SURE})
        for value in values:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            producer.produce(topic, data, b"k", partition)
        assert producer.flush(30) == 0
        first = self.sent.get((topic, partition), 0)
        self.sent[topic, partition] = first + len(values)
        return list(range(first, first + len(values)))

    def events(self, count: int, partition: int = 0) -> list[str]:
        """Events that were scored; returns the ids of their predictions by the task `risk`."""
        topic = self.settings.sources["transactions"].topic
        first = self.sent.get((topic, partition), 0)
        numbers = range(first, first + count)
        said = [{"id": f"e{partition}-{number}", "text": f"text {partition}-{number}"} for number in numbers]
        self.send(topic, said, partition)
        ids = [f"{topic}/{partition}/{number}" for number in numbers]
        self.predict(*(f"{one}/{task}" for one in ids for task in self.settings.tasks))
        return [f"{one}/risk" for one in ids]

    def predict(self, *ids: str) -> None:
        """Predictions of these ids, whether there are such events or not."""
        values = []
        for one in ids:
            topic, partition, offset, task = one.split("/")
            values.append({
                "id": one, "event_id": f"e{partition}-{offset}", "scored_at": SCORED_AT_S, "task": task,
                "release": "risk-1", "label": "legitimate", "score": 0.7,
                "source": {"name": "transactions", "topic": topic, "partition": int(partition), "offset": int(offset)},
            })  # fmt: skip
        self.send(self.settings.topics.predictions, values)

    def feedback(self, *said: object, partition: int = 0) -> list[int]:
        """Records of feedback as they are; returns their offsets."""
        return self.send(self.settings.topics.feedback, said, partition)

    def letters(self, partitions: int = 4) -> dict[str, str]:
        """The error of each dead letter, by its id; copies count once."""
        messages = read_all(self.settings.broker.bootstrap, self.settings.topics.dead_letters, partitions)
        said = [json.loads(message.value() or b"") for message in messages]
        return {one["id"]: one["error"] for one in said}

    def touch(self) -> None:
        """Have every topic made, where that is done by using it."""
        names = self.settings.topics
        Producer({"bootstrap.servers": self.settings.broker.bootstrap}).list_topics(names.dead_letters, 10)
        for name in (
            names.feedback,
            names.predictions,
            names.dead_letters,
            self.settings.sources["transactions"].topic,
        ):
            Producer({"bootstrap.servers": self.settings.broker.bootstrap}).list_topics(name, 10)


def told(label: str | None = "fraud", annotator: str = "ann", hour: int = 1, **fields: Any) -> dict[str, Any]:
    """A record of feedback; without a label a withdrawal."""
    what = {"action": "withdraw"} if label is None else {"label": label}
    return {"task": "risk", "annotator": annotator, "labelled_at": TOLD_AT.format(hour)} | what | fields
