"""Surges after crashes: a detector that was killed again and again says and knows what one that was not does.

Both are whole workers over the same observations in real Kafka: one under faults while they flow in, one afterwards
without any. Alerts are compared after de-duplication by id, the states as the compacted topics hold them.
"""

from __future__ import annotations

import json
import random
import signal
import threading
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streams.broker import KafkaBroker
from streams.events import Observation
from streams.security import librdkafka_config
from streams.settings import OUTPUT_TOPICS, Settings, load_settings
from streams.surge_codec import decode_progress, decode_record
from streams.surge_state import META_KEY, read_compacted
from streams.topics import create_topics
from tests.kafka.harness import Faults, start, stop
from tests.streams.wire import Ends, committed, read_all

OBSERVATIONS, SECONDS, KILLS, PARTITIONS = 12_000, 50.0, 5, 2
EVENT_TIME_S, ENTITIES, BAD_EVERY = 48 * 3600.0, 30, 997
START_S = 1_760_000_000.0

pytestmark = pytest.mark.kafka


def configuration(
    folder: Path, name: str, kafka: KafkaBroker, tiny: dict[str, Path], shared: dict[str, str]
) -> tuple[Path, Settings]:
    """A configuration with group, alerts and state of its own; `shared` names topics that others have too."""
    run = f"{name}-{uuid.uuid4().hex[:8]}"
    topics = {output: f"{run}-{output}" for output in [*OUTPUT_TOPICS, "feedback", "releases"]} | shared
    lines = ["[broker]", f'bootstrap = "{kafka.bootstrap}"', f'group = "{run}"', "session_timeout_s = 6"]
    lines += ["[topics]", f"partitions = {PARTITIONS}"] + [f'{output} = "{topic}"' for output, topic in topics.items()]
    lines += ["[metrics]", "port = 0", "[models]", 'device = "cpu"', f'releases.sentiment = "{tiny["sentiment"]}"']
    lines += ["[batching]", f"max_slice_events = {20 if name == 'killed' else 150}"]
    lines += ["[surge]", "max_entities = 12", "cooldown_s = 600", "resolve_ratio = 1.2"]
    lines += ["[sources.news]", f'topic = "{run}-news"']
    lines += ["[sources.chat]", "enabled = false", "[sources.transactions]", "enabled = false"]
    file = folder / f"{name}.toml"
    file.write_text("\n".join(lines))
    settings = load_settings(file)
    assert not [outcome for outcome in create_topics(settings) if outcome.todo]
    return file, settings


def observations(seed: int) -> list[tuple[str, bytes]]:
    """(entity, value): quiet days with bursts, more entities than a detector remembers, some late, some broken."""
    rng = random.Random(seed)
    bursts = [(rng.randrange(ENTITIES), rng.uniform(0.05, 0.95), rng.uniform(0.003, 0.02)) for _ in range(40)]
    found = []
    for number in range(OBSERVATIONS):
        share = number / OBSERVATIONS
        raging = [entity for entity, since, length in bursts if since <= share < since + length]
        entity = rng.choice(raging) if raging and rng.random() < 0.6 else rng.randrange(ENTITIES)
        time_s = START_S + share * EVENT_TIME_S - (rng.uniform(0, 900) if rng.random() < 0.1 else 0)
        hit = rng.random() < (0.9 if entity in raging else 0.05)
        value: Observation = {
            "id": f"news/0/{number}/observation/0", "entity": f"E{entity}", "event_time_s": round(time_s, 3),
            "hit": hit, "score": round(rng.random(), 6), "text": f"headline {number}", "release": "sentiment-1",
        }  # fmt: skip
        broken = number % BAD_EVERY == BAD_EVERY - 1
        found.append((f"E{entity}", b"{broken" if broken else json.dumps(value).encode()))
    return found


def send(bootstrap: str, topic: str, rows: list[tuple[str, bytes]], seconds: float) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5})
    started_s = time.monotonic()
    for number, (entity, value) in enumerate(rows):
        producer.produce(topic, value, entity.encode())
        producer.poll(0)
        ahead_s = number * seconds / len(rows) - (time.monotonic() - started_s)
        if ahead_s > 0.01:
            time.sleep(ahead_s)
    assert producer.flush(60) == 0


def wait_committed(settings: Settings, timeout_s: float) -> None:
    """Wait until the group has committed every observation."""
    at, topic = settings.broker.bootstrap, settings.topics.observations
    end_s = time.monotonic() + timeout_s
    while sum(max(0, one) for one in committed(at, settings.broker.group, topic, PARTITIONS)) < OBSERVATIONS:
        assert time.monotonic() < end_s, f"not all observations were finished within {timeout_s} s"
        time.sleep(0.2)


def alerts(settings: Settings) -> tuple[dict[str, dict[str, Any]], int]:
    """Alerts by id, without what a repetition may change, and how many there were with repetitions."""
    found: dict[str, dict[str, Any]] = {}
    messages = read_all(settings.broker.bootstrap, settings.topics.alerts, PARTITIONS)
    for message in messages:
        alert = json.loads(message.value() or b"")
        del alert["scored_at"]
        assert found.setdefault(alert["id"], alert) == alert, "a repeated alert says something else"
    return found, len(messages)


def state(settings: Settings, partition: int) -> dict[str, Any]:
    """What the compacted topic of a partition comes to; the epoch counts recoveries, which may differ."""
    records = read_compacted(librdkafka_config(settings.broker), settings.topics.surge_state, partition, 60)
    progress = decode_progress(records.pop(META_KEY))
    entities = {key: decode_record(key, value, progress.next_offset).state for key, value in records.items()}
    known = {key: asdict(one) for key, one in entities.items() if one is not None}
    return {"progress": asdict(progress) | {"epoch": None}, "entities": known}


def run_killed(file: Path, settings: Settings, seed: int) -> int:
    """A supervised worker, killed while the observations flow in; returns how often."""
    ends = Ends(settings.broker.bootstrap, [settings.topics.surge_state], PARTITIONS)
    supervisor = start(["-m", "streams.cli", "worker", "--config", str(file)], {}, file.with_suffix(".log"))
    faults = Faults(supervisor, ends.total, seed)
    try:
        for _ in range(KILLS):
            faults.hit(signal.SIGKILL, (0.05, 1.5))
        wait_committed(settings, 90)
    finally:
        code = stop(supervisor)
        ends.close()
    assert code == 0
    return faults.done["SIGKILL"]


def test_alerts_and_state_after_kills_are_those_of_a_run_without(
    kafka: KafkaBroker, tiny_releases: dict[str, Path], tmp_path: Path
) -> None:
    seed = 5
    file, killed = configuration(tmp_path, "killed", kafka, tiny_releases, {})
    sender = threading.Thread(
        target=send, args=(kafka.bootstrap, killed.topics.observations, observations(seed), SECONDS), daemon=True
    )
    sender.start()
    kills = run_killed(file, killed, seed)
    sender.join(60)

    shared = {"observations": killed.topics.observations}
    calm_file, calm = configuration(tmp_path, "calm", kafka, tiny_releases, shared)
    worker = start(["-m", "streams.cli", "worker", "--config", str(calm_file)], {}, calm_file.with_suffix(".log"))
    try:
        wait_committed(calm, 60)
    finally:
        assert stop(worker) == 0

    (wanted, _), (found, repeated) = alerts(calm), alerts(killed)
    opened = sum(alert["state"] == "open" for alert in wanted.values())
    print(f"\n{OBSERVATIONS} observations, {kills} kills: {opened} surges opened, {len(wanted) - opened} resolved; "
          f"{repeated - len(found)} alerts repeated")  # fmt: skip
    assert kills == KILLS
    assert opened >= 10 and len(wanted) - opened >= 10, "too little happens for this to prove anything"
    assert found == wanted
    for partition in range(PARTITIONS):
        assert state(killed, partition) == state(calm, partition)
        assert state(calm, partition)["progress"]["late"] > 0
    dead = read_all(kafka.bootstrap, killed.topics.dead_letters, PARTITIONS)
    letters = {json.loads(message.value() or b"")["id"] for message in dead}
    assert len(letters) == OBSERVATIONS // BAD_EVERY
