"""A single-node Apache Kafka as a child process (KRaft, Java 17 or newer), on loopback only.

What is acknowledged is still there after a kill and a start: every claim about delivery is tested on it.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console

from models.releases import home
from streams.children import die_with_parent, free_ports

_INSTALLED = Path(__file__).with_name("kafka")
KAFKA_FILES = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[1] / "deploy" / "kafka"
MIN_JAVA = 17
FETCH_TIMEOUT_S = 900.0  # 45 MB over a slow line
STOP_TIMEOUT_S = 20.0
LOG_TAIL_BYTES = 4000
_LISTS = ("listeners", "advertised.listeners", "listener.security.protocol.map")  # are added to, not replaced

_INSTALL = {
    "java": "Debian, Ubuntu: sudo apt install default-jre-headless; Fedora: sudo dnf install "
    "java-latest-openjdk-headless; macOS: brew install --cask temurin",
    "mvn": "Debian, Ubuntu: sudo apt install maven; Fedora: sudo dnf install maven; macOS: brew install maven",
}


class BrokerError(RuntimeError):
    """A broker that cannot be started or reached; the message says why and what to do."""


class KafkaBroker:
    """Apache Kafka in KRaft mode, one node, as a child process that does not outlive its parent (on Linux).

    The jars are fetched with Maven once, into the home directory of Streamgauge. `start` after `stop` or `kill` finds
    the same data at the same port. As a context manager it starts, stops, and removes its data if they are temporary.
    Linux ends the child with the *thread* that started it, so start it from one that stays.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        data_dir: Path | None = None,
        start_timeout_s: float = 90.0,
        properties: Mapping[str, str] | None = None,
        java_options: Sequence[str] = (),
    ) -> None:
        """`port` None takes a free one; `data_dir` None a temporary directory that `close` removes.

        `properties` win over the ones it would run with; a value in one of `listeners` and its kin is added to ours.
        """
        self._temporary = data_dir is None
        self._root = Path(tempfile.mkdtemp(prefix="streamgauge-kafka-")) if data_dir is None else data_dir.resolve()
        free = free_ports(2)
        self._port = port or free[0]
        self._controller_port = free[1]
        self._start_timeout_s = start_timeout_s
        self._more_properties = dict(properties or {})
        self._java_options = tuple(java_options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Its address, the same over all starts."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> Self:
        """Start it and wait until it answers. Raises BrokerError with the end of its log when it does not."""
        if self.pid is not None:
            return self
        java, libs = _java(), kafka_libs()
        with _status(f"Starting Apache Kafka {kafka_version()}"):
            self._format(java, libs)
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603  our own arguments, no shell
                    [
                        *_command(java, libs, "-Xms128m", "-Xmx512m", *self._java_options),
                        "kafka.Kafka",
                        str(self._properties),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # an interrupt at the terminal is ours to hand on, after the clients
                    preexec_fn=die_with_parent(),
                )
            try:
                self._await_answer()
            except BaseException:
                self.kill()
                raise
        return self

    def stop(self) -> None:
        """Let it close its files; kill it if it has not ended after STOP_TIMEOUT_S seconds."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would; the data stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Stop it, and remove its data if they are temporary."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _properties(self) -> Path:
        return self._root / "server.properties"

    @property
    def _data(self) -> Path:
        return self._root / "data"

    @property
    def _log(self) -> Path:
        return self._root / "server.log"

    def _format(self, java: str, libs: Path) -> None:
        """Write its configuration, and make its data directory a KRaft one at the first start."""
        data = self._data
        data.mkdir(parents=True, exist_ok=True)
        properties = _server_properties(self._port, self._controller_port, data)
        for key, value in self._more_properties.items():
            properties[key] = f"{properties[key]},{value}" if key in _LISTS else value
        text = "".join(f"{key}={value}\n" for key, value in properties.items())
        self._properties.write_text(text, encoding="utf-8")
        if (data / "meta.properties").exists():
            return
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        # With "=": an id may begin with a dash and would be read as an option.
        arguments = ["format", f"--cluster-id={cluster_id}", f"--config={self._properties}"]
        command = [*_command(java, libs, "-Xmx128m"), "kafka.tools.StorageTool", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  as above
        if done.returncode:
            raise BrokerError(f"{data} could not be made a Kafka data directory:\n{_tail(done.stderr + done.stdout)}")

    def _await_answer(self) -> None:
        cluster_id = _value("cluster.id", self._data / "meta.properties")
        deadline = time.monotonic() + self._start_timeout_s
        quick = {"log_level": 0, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 250}
        admin = AdminClient({"bootstrap.servers": self.bootstrap, **quick})
        while time.monotonic() < deadline:
            if self.pid is None:
                raise BrokerError(f"Apache Kafka ended while it started, on {self.bootstrap}:\n{self._log_tail()}")
            try:
                cluster = admin.list_topics(timeout=1)
            except KafkaException:
                continue  # it waited for a second inside
            if cluster.cluster_id != cluster_id:
                raise BrokerError(f"port {self._port} is taken by another Kafka; stop it, or choose another port")
            if cluster.brokers:
                return
        raise BrokerError(
            f"Apache Kafka on {self.bootstrap} did not answer within {self._start_timeout_s:g} s:\n{self._log_tail()}"
        )

    def _log_tail(self) -> str:
        return _tail(self._log.read_text(encoding="utf-8", errors="replace"))


def kafka_version() -> str:
    """The version of Kafka that deploy/kafka/pom.xml names."""
    found = re.search(r"<kafka\.version>([\w.]+)</kafka\.version>", (KAFKA_FILES / "pom.xml").read_text("utf-8"))
    if not found:
        raise BrokerError(f"{KAFKA_FILES / 'pom.xml'}: has no <kafka.version>; restore the file")
    return found[1]


def kafka_libs() -> Path:
    """The folder of Kafka's jars; fetched with Maven if it is not there yet. Raises BrokerError saying what to do."""
    libs = _libs_path()
    if libs.is_dir():
        return libs
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(f"`mvn` is not on the PATH, and Kafka's jars are not in {libs}. {_INSTALL['mvn']}")
    libs.parent.mkdir(parents=True, exist_ok=True)
    incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=libs.parent))
    options = ["-B", "-q", "-f", str(KAFKA_FILES / "pom.xml"), f"-DoutputDirectory={incoming}"]
    try:
        with _status(f"Fetching Apache Kafka {kafka_version()} with Maven (about 45 MB, once)"):
            done = subprocess.run(  # noqa: S603  our own arguments, no shell
                [maven, *options, "dependency:copy-dependencies"],
                capture_output=True,
                text=True,
                check=False,
                timeout=FETCH_TIMEOUT_S,
            )
        if done.returncode:
            raise BrokerError(f"Maven could not fetch Kafka's jars; is Maven Central reachable?\n{_tail(done.stdout)}")
        incoming.chmod(0o755)
        incoming.rename(libs)
    except subprocess.TimeoutExpired:
        raise BrokerError(f"Maven did not fetch Kafka's jars within {FETCH_TIMEOUT_S:g} s; try again") from None
    except OSError:
        if not libs.is_dir():  # else another process was faster, and its jars are the same
            raise
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return libs


def kafka_unavailable() -> str | None:
    """Why Apache Kafka cannot be run here, in one line; None when nothing speaks against it."""
    try:
        _java()
        if not _libs_path().is_dir() and shutil.which("mvn") is None:
            return f"`mvn` is not on the PATH. {_INSTALL['mvn']}"
    except BrokerError as error:
        return str(error)
    return None


def _libs_path() -> Path:
    return home() / "kafka" / kafka_version() / "libs"


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise BrokerError(f"`java` is not on the PATH; Apache Kafka needs Java {MIN_JAVA} or newer. {_INSTALL['java']}")
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603  as above
    found = re.search(r'version "(\d+)', done.stderr)
    if done.returncode or not found or int(found[1]) < MIN_JAVA:
        what = f"is Java {found[1]}" if found else "does not say its version"
        raise BrokerError(f"{java} {what}; Apache Kafka needs Java {MIN_JAVA} or newer. {_INSTALL['java']}")
    return java


def _command(java: str, libs: Path, *options: str) -> list[str]:
    quiet = f"-Dlog4j2.configurationFile={KAFKA_FILES / 'log4j2.properties'}"
    return [java, *options, "-XX:+UseSerialGC", "-XX:-UsePerfData", quiet, "-cp", f"{libs}/*"]


def _server_properties(port: int, controller_port: int, data: Path) -> dict[str, object]:
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        # A killed broker may register again only when its old session is over: by default that takes nine seconds.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "auto.create.topics.enable": "false",
    }


def _value(key: str, properties: Path) -> str:
    lines = properties.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix(f"{key}=") for line in lines if line.startswith(f"{key}="))


def _status(text: str) -> Any:
    return Console(stderr=True).status(text)


def _tail(text: str) -> str:
    return text[-LOG_TAIL_BYTES:].strip()
