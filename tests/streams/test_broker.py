from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from streams.broker import KAFKA_FILES, BrokerError, KafkaBroker, kafka_libs, kafka_unavailable, kafka_version
from streams.embedded import embedded_broker

Unique = Callable[[str], str]
QUIET: dict[str, str | int | float | bool] = {"log_level": 0}


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    """Every value acknowledged, or an assertion."""
    refused: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "message.timeout.ms": 20_000} | QUIET)
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: refused.append(error) if error else None)
    assert producer.flush(30) == 0
    assert refused == []


def consume(bootstrap: str, topic: str, group: str, count: int) -> list[bytes]:
    consumer = Consumer(QUIET | {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([topic])
        return sorted(m.value() or b"" for m in consumer.consume(count, timeout=30) if not m.error())
    finally:
        consumer.close()


def create(bootstrap: str, topic: str) -> None:
    admin = AdminClient(QUIET | {"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 2, 1)], operation_timeout=20)[topic].result()


def listening_addresses(pid: int) -> set[str]:
    """The addresses a process listens on, in the kernel's hexadecimal, from /proc."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes |= set(re.findall(r"socket:\[(\d+)\]", str(link.readlink())))
        except FileNotFoundError:
            continue  # closed meanwhile
    lines = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()
    ]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[9] in inodes}


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_embedded_produce_and_consume(unique: Unique) -> None:
    with embedded_broker({"news": 3}) as broker:
        values = [b"%02d" % i for i in range(20)]
        produce(broker.bootstrap, "news", values)
        assert consume(broker.bootstrap, "news", unique("group"), 20) == values
        topics = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=5).topics
        assert {name: len(topic.partitions) for name, topic in topics.items()} == {"news": 3}


def test_embedded_brokers_are_separate_and_end() -> None:
    with embedded_broker({"a": 1}) as one, embedded_broker({"b": 1}) as two:
        assert one.bootstrap != two.bootstrap
        assert list(AdminClient({"bootstrap.servers": two.bootstrap}).list_topics(timeout=5).topics) == ["b"]
    with pytest.raises(KafkaException):
        AdminClient(QUIET | {"bootstrap.servers": one.bootstrap}).list_topics(timeout=0.3)


def test_embedded_refuses_a_topic_without_partitions() -> None:
    with pytest.raises(BrokerError, match="'news' with 0 partitions"), embedded_broker({"news": 0}):
        pass


@only_linux
def test_embedded_listens_on_loopback_only() -> None:
    with embedded_broker({"news": 1}):
        found = listening_addresses(os.getpid())
    assert found
    assert found <= LOOPBACK


def test_missing_java_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = kafka_unavailable()
    assert reason is not None
    assert "\n" not in reason
    for words in ("`java`", "Java 17", "apt install", "dnf install", "brew install"):
        assert words in reason
    with pytest.raises(BrokerError, match="apt install"), KafkaBroker():
        pass


@pytest.mark.parametrize(
    ("version", "usable"), [("1.8.0_402", False), ("11.0.2", False), ("17.0.1", True), ("25", True)]
)
def test_the_version_of_java_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, usable: bool
) -> None:
    for name in ("java", "mvn"):
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (kafka_unavailable() is None) == usable


def test_missing_maven_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError, match=r"`mvn` is not on the PATH.*apt install maven.*dnf.*brew"):
        kafka_libs()


def test_maven_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho 'no route to host'\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    with pytest.raises(BrokerError, match=r"Maven Central(?s:.)*no route to host"):
        kafka_libs()
    assert [
        path for path in (tmp_path / "home").rglob("*") if path.name != kafka_version() and path.name != "kafka"
    ] == []


def test_compose_runs_the_same_kafka() -> None:
    assert f"image: apache/kafka:{kafka_version()}\n" in (KAFKA_FILES.parent / "compose.yaml").read_text()


@pytest.mark.kafka
def test_kafka_produce_and_consume(kafka: KafkaBroker, unique: Unique) -> None:
    topic = unique("news")
    create(kafka.bootstrap, topic)
    values = [b"%02d" % i for i in range(20)]
    produce(kafka.bootstrap, topic, values)
    assert consume(kafka.bootstrap, topic, unique("group"), 20) == values


@only_linux
@pytest.mark.kafka
def test_kafka_listens_on_loopback_only(kafka: KafkaBroker) -> None:
    assert kafka.pid
    found = listening_addresses(kafka.pid)
    assert found
    assert found <= LOOPBACK


@pytest.mark.kafka
def test_acknowledged_data_outlive_a_kill(kafka: KafkaBroker, unique: Unique, tmp_path: Path) -> None:
    values = [b"%04d" % i for i in range(2000)]
    with KafkaBroker(data_dir=tmp_path) as broker:
        create(broker.bootstrap, "news")
        produce(broker.bootstrap, "news", values)
        before = broker.bootstrap
        broker.kill()
        assert broker.pid is None
        broker.start()
        assert broker.bootstrap == before
        assert consume(broker.bootstrap, "news", unique("group"), 2000) == values
    with KafkaBroker(data_dir=tmp_path) as reopened:  # other ports, the same directory
        assert consume(reopened.bootstrap, "news", unique("group"), 2000) == values


@pytest.mark.kafka
def test_a_taken_port_is_not_taken_for_ones_own(kafka: KafkaBroker) -> None:
    taken = int(kafka.bootstrap.rpartition(":")[2])
    with pytest.raises(BrokerError, match=r"taken by another Kafka|ended while it started"), KafkaBroker(port=taken):
        pass


@only_linux
@pytest.mark.kafka
def test_kafka_ends_with_its_parent(kafka: KafkaBroker, tmp_path: Path) -> None:
    script = (
        "import pathlib, sys\nfrom streams.broker import KafkaBroker\n"
        "b = KafkaBroker(data_dir=pathlib.Path(sys.argv[1])).start()\nprint(b.pid, flush=True)\nsys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        handle = os.pidfd_open(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    try:
        assert select.select([handle], [], [], 10)[0], "Kafka is still running"
    finally:
        os.close(handle)
