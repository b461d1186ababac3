"""A local Kafka cluster to break: every node broker and controller at once, on loopback, with small heaps.

Each node has three listeners for clients. `direct` is for the storm itself and between brokers; `left` and `right` are
advertised at the address of a proxy, so that one half of the workers can be cut off and the other not. Data are not
removed by a kill: what was acknowledged must still be there after it.
"""

from __future__ import annotations

import base64
import shutil
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.broker import KAFKA_FILES, BrokerError, kafka_libs
from streams.children import die_with_parent, free_ports
from tests.storm.patience import Patience

Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = get_args(Side)
REPLICATION = 3
HEAP_MB = 256
WHOLE_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Ports:
    """Of one node; a client of a side is told the proxy's."""

    direct: int
    sides: dict[Side, int]
    proxies: dict[Side, int]
    controller: int


class Node:
    """One process of the cluster."""

    def __init__(self, number: int, directory: Path, ports: Ports) -> None:
        self.number = number
        self.ports = ports
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether its process does."""
        return self._process is not None and self._process.poll() is None

    def listens(self) -> bool:
        """Whether it takes connections, which it does once it is ready."""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.ports.direct)) == 0

    def prepare(self, java: str, libs: Path, cluster_id: str, voters: str, brokers: int) -> subprocess.Popen[bytes]:
        """Write its configuration and start making its data directory one of the cluster."""
        self._directory.mkdir(parents=True)
        properties = self._directory / "server.properties"
        lines = _properties(self.number, self.ports, self._directory / "data", voters, brokers)
        properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="utf-8")
        self._command = [*_java(java, libs), "kafka.Kafka", str(properties)]
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", f"--config={properties}"]
        with (self._directory / "format.log").open("wb") as log:
            return subprocess.Popen([*_java(java, libs), *tool], stdout=log, stderr=log, preexec_fn=die_with_parent())

    def start(self) -> None:
        """Start it; does not wait."""
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=die_with_parent(),
            )  # fmt: skip

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self) -> None:
        """Wait until its process has ended, as it was told to; kill it when it does not."""
        if self._process is None:
            return
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Cluster:
    """So many nodes; replication 3 and two in-sync replicas when there are three."""

    def __init__(self, directory: Path, brokers: int) -> None:
        ports = iter(free_ports(6 * brokers))
        self.nodes = []
        for number in range(brokers):
            sides = {side: next(ports) for side in SIDES}
            proxies = {side: next(ports) for side in SIDES}
            self.nodes.append(
                Node(number + 1, directory / f"broker-{number + 1}", Ports(next(ports), sides, proxies, next(ports)))
            )

    def start(self) -> None:
        """Make the cluster and wait until it is whole. Raises BrokerError when it is not in time."""
        java = shutil.which("java")
        if java is None:
            raise BrokerError("`java` is not on the PATH; Apache Kafka needs Java 17 or newer")
        libs = kafka_libs()
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        voters = ",".join(f"{node.number}@127.0.0.1:{node.ports.controller}" for node in self.nodes)
        formatting = [node.prepare(java, libs, cluster_id, voters, len(self.nodes)) for node in self.nodes]
        if any(one.wait(120) for one in formatting):
            raise BrokerError("a data directory could not be made; see format.log in the storm's directory")
        for node in self.nodes:
            node.start()
        self.await_whole()

    @property
    def bootstrap(self) -> str:
        """All brokers, directly."""
        return ",".join(f"127.0.0.1:{node.ports.direct}" for node in self.nodes)

    def bootstrap_of(self, side: Side) -> str:
        """All brokers, through the proxies of a side."""
        return ",".join(f"127.0.0.1:{node.ports.proxies[side]}" for node in self.nodes)

    def await_whole(self, timeout_s: float = WHOLE_TIMEOUT_S) -> None:
        """Wait until every broker is there and every replica in sync. Raises BrokerError when that takes too long."""
        patience = Patience(timeout_s)
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 500})
        what = "it does not answer"
        while not patience.over:
            time.sleep(0.2)
            if not all(node.listens() for node in self.nodes):
                continue  # the others do not know yet that it is gone
            try:
                found = admin.list_topics(timeout=2)
            except KafkaException:
                continue
            partitions = [part for topic in found.topics.values() for part in topic.partitions.values()]
            behind = sum(len(part.isrs) < len(part.replicas) or part.leader < 0 for part in partitions)
            if len(found.brokers) == len(self.nodes) and not behind:
                return
            what = f"{len(found.brokers)} of {len(self.nodes)} brokers, {behind} of {len(partitions)} partitions behind"
        raise BrokerError(f"the cluster is not whole after {timeout_s:g} s: {what}")

    def close(self) -> None:
        """End all of it."""
        for node in self.nodes:
            node.send(signal.SIGKILL)
            node.wait()


def _java(java: str, libs: Path) -> list[str]:
    quiet = f"-Dlog4j2.configurationFile={KAFKA_FILES / 'log4j2.properties'}"
    small = ["-Xms64m", f"-Xmx{HEAP_MB}m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1"]
    return [java, *small, quiet, "-cp", f"{libs}/*"]


def _properties(number: int, ports: Ports, data: Path, voters: str, brokers: int) -> dict[str, object]:
    sides = {side.upper(): (ports.sides[side], ports.proxies[side]) for side in SIDES}
    listeners = {"DIRECT": ports.direct, **{name: port for name, (port, _) in sides.items()}}
    advertised = {"DIRECT": ports.direct, **{name: proxy for name, (_, proxy) in sides.items()}}
    replication, in_sync = min(REPLICATION, brokers), 2 if brokers >= REPLICATION else 1
    return {
        "process.roles": "broker,controller",
        "node.id": number,
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": _addresses({**listeners, "CONTROLLER": ports.controller}),
        "advertised.listeners": _addresses(advertised),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in (*listeners, "CONTROLLER")),
        "inter.broker.listener.name": "DIRECT",
        "log.dirs": data,
        "broker.session.timeout.ms": 5000,
        "broker.heartbeat.interval.ms": 500,
        "replica.lag.time.max.ms": 8000,
        "num.network.threads": 1,
        "num.io.threads": 4,
        "log.cleaner.dedupe.buffer.size": 8 << 20,  # 128 MB by default: half the heap
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": replication,
        "transaction.state.log.num.partitions": 1,
        "transaction.state.log.replication.factor": replication,
        "transaction.state.log.min.isr": in_sync,
        "min.insync.replicas": in_sync,
        "group.initial.rebalance.delay.ms": 0,
        "auto.create.topics.enable": "false",
    }


def _addresses(ports: dict[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
