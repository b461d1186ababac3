"""Offsets without a record: not to be waited for, and if they had been this group's to read, not passed in silence."""

from __future__ import annotations

import signal
import time
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.broker import KafkaBroker
from streams.settings import TOPICS, Settings, load_settings
from streams.topics import create_topics
from tests.kafka.harness import event, start, stop
from tests.streams.wire import Ends, committed, free_port, read_all

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


def configuration(folder: Path, kafka: KafkaBroker, tiny: dict[str, Path]) -> tuple[Path, Settings]:
    """A worker for chat alone, with one partition."""
    run = f"retention-{uuid.uuid4().hex[:8]}"
    lines = ["[broker]", f'bootstrap = "{kafka.bootstrap}"', f'group = "{run}"', "session_timeout_s = 6"]
    outputs = TOPICS
    lines += ["[topics]", "partitions = 1"] + [f'{name} = "{run}-{name}"' for name in outputs]
    lines += ["[metrics]", "port = 0", "[worker]", f"stall_s = {STALL_S}", "[models]", 'device = "cpu"']
    lines += [f'releases.intent = "{tiny["intent"]}"', "[sources.chat]", f'topic = "{run}-chat"']
    lines += ["[sources.news]", "enabled = false", "[sources.transactions]", "enabled = false"]
    file = folder / "streamgauge.toml"
    file.write_text("\n".join(lines))
    settings = load_settings(file)
    create_topics(settings)
    return file, settings


def send(bootstrap: str, topic: str, numbers: range) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in numbers:
        producer.produce(topic, event(number))
    assert producer.flush(20) == 0


def until(true: Callable[[], bool], log: Path, timeout_s: float = 60) -> None:
    end_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.1)


@pytest.mark.parametrize("prepare", [expired, transaction])
def test_offsets_without_a_record_are_no_work_to_wait_for(
    prepare: Callable[[str, str], None], kafka: KafkaBroker, tiny_releases: dict[str, Path], tmp_path: Path
) -> None:
    file, settings = configuration(tmp_path, kafka, tiny_releases)
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
        send(kafka.bootstrap, topic, range(50, 51))
        until(lambda: ends.total() > before, log)
        assert " are lost" not in log.read_text(), "nothing was this group's to lose"
    finally:
        ends.close()
        stop(worker)


def test_what_retention_deleted_before_it_was_read_is_said_and_counted(
    kafka: KafkaBroker, tiny_releases: dict[str, Path], tmp_path: Path
) -> None:
    """Once while no worker runs, and once while one is held up."""
    file, settings = configuration(tmp_path, kafka, tiny_releases)
    topic, admin = settings.sources["chat"].topic, AdminClient({"bootstrap.servers": kafka.bootstrap})
    log, port = tmp_path / "worker.log", free_port()
    env = {"STREAMGAUGE_CONFIG": str(file), "STREAMGAUGE_METRICS__PORT": str(port)}

    def done(offset: int) -> bool:
        return committed(kafka.bootstrap, settings.broker.group, topic, 1) == [offset]

    def delete_before(offset: int) -> None:
        for one in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
            assert one.result().low_watermark == offset

    send(kafka.bootstrap, topic, range(10))
    worker = start(["-m", "streams.worker"], env, log)
    try:
        until(lambda: done(10), log)
        assert stop(worker) == 0
        send(kafka.bootstrap, topic, range(10, 60))
        delete_before(50)
        worker = start(["-m", "streams.worker"], env, log)
        until(lambda: done(60), log)
        assert f"{topic}/0: 40 records are lost, offsets 10 to 49" in log.read_text()

        worker.send_signal(signal.SIGSTOP)
        # The broker still holds the fetch it was asked for before, and would answer it with what comes now.
        time.sleep(20 * settings.broker.fetch_max_wait_ms / 1000)
        send(kafka.bootstrap, topic, range(60, 90))
        delete_before(80)
        worker.send_signal(signal.SIGCONT)
        until(lambda: done(90), log)
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        lost = f'streamgauge_events_lost_to_retention_total{{topic="{topic}"}} '
        assert next(line for line in page.splitlines() if line.startswith(lost)) == f"{lost}60.0", log.read_text()
        assert f"{topic}/0: 20 records are lost, offsets 60 to 79" in log.read_text()
    finally:
        stop(worker)
    messages = read_all(kafka.bootstrap, settings.topics.predictions, 1)
    numbers = {int(orjson.loads(message.value() or b"")["event_id"][1:]) for message in messages}
    assert numbers == {*range(10), *range(50, 60), *range(80, 90)}
