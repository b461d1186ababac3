"""Offsets without a record, which a worker must not wait for: deleted by retention, or markers of transactions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.broker import KafkaBroker
from streams.settings import OUTPUT_TOPICS, load_settings
from streams.topics import create_topics
from tests.kafka.harness import event, start, stop
from tests.streams.wire import Ends

STALL_S = 5

pytestmark = pytest.mark.kafka


def expired(bootstrap: str, topic: str) -> None:
    """Fifty records that retention has deleted before anyone read them."""
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(50):
        producer.produce(topic, event(number))
    assert producer.flush(20) == 0
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.delete_records([TopicPartition(topic, 0, 50)]).values():
        assert done.result().low_watermark == 50


def transaction(bootstrap: str, topic: str) -> None:
    """A transaction: after its records comes a marker, which no consumer is ever given."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic})
    producer.init_transactions(20)
    producer.begin_transaction()
    for number in range(3):
        producer.produce(topic, event(number))
    producer.commit_transaction(20)


@pytest.mark.parametrize("prepare", [expired, transaction])
def test_offsets_without_a_record_are_no_work_to_wait_for(
    prepare: Callable[[str, str], None], kafka: KafkaBroker, tiny_releases: dict[str, Path], tmp_path: Path
) -> None:
    run = f"retention-{uuid.uuid4().hex[:8]}"
    lines = ["[broker]", f'bootstrap = "{kafka.bootstrap}"', f'group = "{run}"', "session_timeout_s = 6"]
    outputs = [*OUTPUT_TOPICS, "feedback", "releases"]
    lines += ["[topics]", "partitions = 1"] + [f'{name} = "{run}-{name}"' for name in outputs]
    lines += ["[metrics]", "port = 0", "[worker]", f"stall_s = {STALL_S}", "[models]", 'device = "cpu"']
    lines += [f'releases.intent = "{tiny_releases["intent"]}"', "[sources.chat]", f'topic = "{run}-chat"']
    lines += ["[sources.news]", "enabled = false", "[sources.transactions]", "enabled = false"]
    file = tmp_path / "streamgauge.toml"
    file.write_text("\n".join(lines))
    settings = load_settings(file)
    create_topics(settings)
    topic = settings.sources["chat"].topic
    prepare(kafka.bootstrap, topic)
    log, ends = tmp_path / "worker.log", Ends(kafka.bootstrap, [settings.topics.predictions], 1)
    worker = start(["-m", "streams.worker"], {"STREAMGAUGE_CONFIG": str(file)}, log)
    try:
        end_s = time.monotonic() + 3 * STALL_S + 5
        while time.monotonic() < end_s:
            assert worker.poll() is None, f"ended with {worker.returncode}:\n{log.read_text()}"
            time.sleep(0.2)
        before = ends.total()
        producer = Producer({"bootstrap.servers": kafka.bootstrap})
        producer.produce(topic, event(50))
        assert producer.flush(20) == 0
        end_s = time.monotonic() + 20
        while ends.total() == before:
            assert time.monotonic() < end_s, log.read_text()
            time.sleep(0.1)
    finally:
        ends.close()
        stop(worker)
