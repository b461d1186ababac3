"""What became of the events of a run: read from the output topics once everything is committed."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from streams.security import librdkafka_config
from streams.settings import Settings
from streams.surge_codec import decode_progress, decode_record
from streams.surge_state import ENTITY_PREFIX, META_KEY, read_compacted
from streams.surges import SurgeDetector
from tests.crash.traffic import Wanted
from tests.streams.wire import read_all

MAY_DIFFER = {"scored_at", "failed_at", "first_seen_at"}  # the wall clock at which it was done


@dataclass
class Verdict:
    """How many outputs are missing, repeated, there though nothing caused them, or not what they must be."""

    lost: int = 0
    duplicates: int = 0
    unexpected: int = 0
    different: int = 0
    dead_letters: int = 0
    surges: int = 0

    @property
    def clean(self) -> bool:
        """Nothing lost, invented or changed; duplicates are another matter."""
        return not (self.lost or self.unexpected or self.different)


def judge(settings: Settings, wanted: Wanted, partitions: int) -> Verdict:
    """Compare the output topics with what must be in them."""
    found = Verdict()
    topics = settings.topics
    predictions = _read(settings, topics.predictions, partitions, found)
    letters = _read(settings, topics.dead_letters, partitions, found)
    found.duplicates = predictions.repeated + letters.repeated
    observations = _read(settings, topics.observations, partitions, found)
    routes = _read(settings, topics.routes, partitions, found)
    for seen, must in (
        (predictions, wanted.predictions.keys()),
        (letters, wanted.letters.keys()),
        (observations, wanted.observations),
        (routes, wanted.routes),
    ):
        found.lost += len(must - seen.by_id.keys())
        found.unexpected += len(seen.by_id.keys() - must)
    found.dead_letters = len(letters.by_id)
    for name, label in wanted.predictions.items():
        found.different += name in predictions.by_id and predictions.by_id[name]["label"] != label
    for name, value in wanted.letters.items():
        letter = letters.by_id.get(name)
        found.different += letter is not None and base64.b64decode(letter["value_base64"]) != value
    _judge_surges(settings, partitions, found)
    return found


@dataclass
class _Topic:
    by_id: dict[str, Mapping[str, Any]]
    repeated: int


def _read(settings: Settings, topic: str, partitions: int, found: Verdict) -> _Topic:
    by_id: dict[str, Mapping[str, Any]] = {}
    messages = read_all(settings.broker.bootstrap, topic, partitions)
    for message in messages:
        value = {key: part for key, part in json.loads(message.value() or b"").items() if key not in MAY_DIFFER}
        found.different += by_id.setdefault(value["id"], value) != value
    return _Topic(by_id, len(messages) - len(by_id))


def _judge_surges(settings: Settings, partitions: int, found: Verdict) -> None:
    """The alerts and the state must be those of one detector that reads the observations without a break."""
    alerts = _read(settings, settings.topics.alerts, partitions, found).by_id
    wanted: set[str] = set()
    for partition in range(partitions):
        detector = SurgeDetector.restored(settings.surge, {}, None)
        for message in read_all(settings.broker.bootstrap, settings.topics.observations, partitions):
            if message.partition() == partition:
                observation = json.loads(message.value() or b"")
                wanted |= {change.output_id for change in detector.observe(message.offset() or 0, observation)}
        states = {name: state for name, state in detector.changed().items() if state is not None}
        found.different += _state(settings, partition) != _decoded(detector.meta(), states)
    found.surges = len(wanted)
    found.lost += len(wanted - alerts.keys())
    found.unexpected += len(alerts.keys() - wanted)


def _state(settings: Settings, partition: int) -> dict[str, Any]:
    topic = settings.topics.surge_state
    records = read_compacted(librdkafka_config(settings.broker), topic, partition, 30)
    meta = records.pop(META_KEY, SurgeDetector.restored(settings.surge, {}, None).meta())
    return _decoded(meta, {key.removeprefix(ENTITY_PREFIX): value for key, value in records.items()})


def _decoded(meta: bytes, records: Mapping[str, bytes]) -> dict[str, Any]:
    progress = decode_progress(meta)
    states = {key: decode_record(key, value, progress.next_offset).state for key, value in records.items()}
    known = {key: asdict(state) for key, state in states.items() if state is not None}
    return {"progress": asdict(progress) | {"epoch": None}, "entities": known}
