"""Nothing lost: 5,000 events through real Kafka while the worker is killed three times and terminated once."""

from __future__ import annotations

import base64
import signal
import threading
import uuid
from pathlib import Path

import pytest

from streams.broker import KafkaBroker
from streams.settings import TOPICS, load_settings
from streams.topics import create_topics
from tests.kafka.harness import Faults, Reader, Sent, send_events, start, stop

EVENTS, BAD_SHARE, SECONDS = 5000, 0.02, 45.0
PARTITIONS = 4

pytestmark = pytest.mark.kafka


@pytest.fixture
def config(tmp_path: Path, kafka: KafkaBroker, tiny_releases: dict[str, Path]) -> Path:
    """A configuration with topics and group of its own, tiny models, small batches."""
    run = f"{tmp_path.name[:20].replace('_', '-')}-{uuid.uuid4().hex[:8]}"
    outputs = TOPICS
    lines = ["[broker]", f'bootstrap = "{kafka.bootstrap}"', f'group = "{run}"', "session_timeout_s = 6", "[topics]"]
    lines += [f"partitions = {PARTITIONS}"] + [f'{name} = "{run}-{name}"' for name in outputs]
    lines += ["[metrics]", "port = 0", "[batching]", "max_slice_events = 50", "[models]", 'device = "cpu"']
    lines += ["[models.releases]"] + [f'{task} = "{path}"' for task, path in tiny_releases.items()]
    for source in ("news", "chat", "transactions"):
        lines += [f"[sources.{source}]", f'topic = "{run}-{source}"']
    file = tmp_path / "streamgauge.toml"
    file.write_text("\n".join(lines))
    assert {outcome.state for outcome in create_topics(load_settings(file))} == {"created"}
    return file


def run_with_faults(
    bootstrap: str,
    config: Path,
    arguments: list[str],
    env: dict[str, str],
    kills: list[signal.Signals],
    seed: int,
    wait_s: float = 90,
) -> tuple[Sent, Reader, Faults, int]:
    settings = load_settings(config)
    reader = Reader(bootstrap, settings.topics.predictions, settings.topics.dead_letters, PARTITIONS)
    reader.start()
    supervisor = start(arguments, env, config.with_name("worker.log"))
    faults = Faults(supervisor, lambda: len(reader.seen.predictions), seed)
    topics = [source.topic for source in settings.active_sources.values()]
    sent: list[Sent] = []
    sender = threading.Thread(
        target=lambda: sent.append(send_events(bootstrap, topics, EVENTS, BAD_SHARE, SECONDS, seed)), daemon=True
    )
    try:
        sender.start()
        for kill in kills:
            faults.hit(kill, (0.2, 3.0))
        if kills:
            faults.another_worker()  # one that can be told to stop
        sender.join(SECONDS + 90)
        assert sent, "the events could not all be sent"
        reader.wait_for(sent[0], wait_s)
    finally:
        code = stop(supervisor)
        reader.close()
    return sent[0], reader, faults, code


def test_every_event_has_its_end_though_the_worker_is_killed(kafka: KafkaBroker, config: Path) -> None:
    kills = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL]
    arguments = ["-m", "streams.cli", "worker", "--config", str(config)]
    sent, reader, faults, code = run_with_faults(kafka.bootstrap, config, arguments, {}, kills, seed=11)
    seen = reader.seen
    lost = set(sent.good.values()) - seen.predictions.keys()
    missing = sent.bad.keys() - seen.dead.keys()
    print(
        f"\n{EVENTS} events, faults {dict(faults.done)}: lost {len(lost)}, bad without dead letter {len(missing)}, "
        f"dead letters {len(seen.dead)}, duplicates {seen.duplicates()}"
    )
    assert not lost
    assert not missing
    assert seen.dead.keys() == sent.bad.keys(), "a good event became a dead letter"
    assert seen.predictions.keys() == set(sent.good.values())
    assert code == 0
    assert faults.done == {"SIGKILL": 3, "SIGTERM": 1}
    assert all(len(set(ends)) == 1 for ends in seen.predictions.values()), "a redelivery changed an output"
    for at, letters in seen.dead.items():
        assert {letter["id"] for letter in letters} == {f"{at}/dead-letter"}
        assert base64.b64decode(letters[0]["value_base64"]) == sent.bad[at]


def test_the_harness_sees_the_losses_of_a_naive_agent(kafka: KafkaBroker, config: Path, tmp_path: Path) -> None:
    settings = load_settings(config)
    env = {
        "NAIVE_GROUP": settings.broker.group + "-naive",
        "NAIVE_BOOTSTRAP": kafka.bootstrap,
        "NAIVE_PREDICTIONS": settings.topics.predictions,
        "NAIVE_TOPICS": ",".join(source.topic for source in settings.active_sources.values()),
        "NAIVE_DATA": str(tmp_path / "naive"),
    }
    sent, reader, _, _ = run_with_faults(
        kafka.bootstrap, config, ["-m", "tests.kafka.naive_worker"], env, [], seed=11, wait_s=15
    )
    lost = set(sent.good.values()) - reader.seen.predictions.keys()
    print(f"\nnaive agent, no fault but {len(sent.bad)} bad events: lost {len(lost)} of {len(sent.good)}")
    assert lost, "the harness does not see loss"
