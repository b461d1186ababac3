"""A real worker process on the embedded broker: start, work, stop, and how it ends when it cannot start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from streams.embedded import EmbeddedBroker, embedded_broker
from streams.settings import load_settings
from streams.topics import wanted_topics
from streams.watchdogs import LOOP_STALL_S
from tests.streams.wire import committed, free_port, read_all

ROOT = Path(__file__).parents[2]
LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp
SECRET = "S3cret-Word-77"  # noqa: S105 - made up


class WorkerProcess:
    """`python -m streams.worker` with these settings, its log in a file."""

    module = "streams.worker"

    def __init__(self, folder: Path, bootstrap: str, **settings: object) -> None:
        given = {
            "BROKER__BOOTSTRAP": bootstrap, "BROKER__FETCH_MAX_WAIT_MS": 10, "BROKER__SESSION_TIMEOUT_S": 6,
            "METRICS__PORT": 0, "MODELS__DEVICE": "cpu", "MODELS__THREADS": 1, **settings,
        }  # fmt: skip
        env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMGAUGE_")}
        env |= {"STREAMGAUGE_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
        env |= {f"STREAMGAUGE_{name}": str(value) for name, value in given.items()}
        self._log = folder / "worker.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module], cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT
            )

    def log(self) -> str:
        return self._log.read_text()

    def until(self, true: Callable[[], bool], timeout_s: float = 60) -> None:
        end_s = time.monotonic() + timeout_s
        while not true():
            assert self.process.poll() is None, f"the worker ended with {self.process.returncode}:\n{self.log()}"
            assert time.monotonic() < end_s, f"not so within {timeout_s} s; the log:\n{self.log()}"
            time.sleep(0.05)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(45)

    def ends(self, timeout_s: float = 60) -> int:
        return self.process.wait(timeout_s)


Start = Callable[..., WorkerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[WorkerProcess] = []

    def run(bootstrap: str, **settings: object) -> WorkerProcess:
        running.append(WorkerProcess(tmp_path, bootstrap, **settings))
        return running[-1]

    yield run
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    """An embedded broker with the shipped topics."""
    with embedded_broker({one.name: one.partitions for one in wanted_topics(load_settings(env={}))}) as one:
        yield one


def releases(tiny: dict[str, Path]) -> dict[str, object]:
    return {f"MODELS__RELEASES__{task.upper()}": path for task, path in tiny.items()}


def listening(pid: int) -> list[tuple[str, int]]:
    """Address and port of every TCP socket on which the process listens, read from the kernel."""
    own = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(link))
        except FileNotFoundError:
            continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and f"socket:[{fields[9]}]" in own:
                address, port = fields[1].split(":")
                found.append((address, int(port, 16)))
    return found


def send(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 2})
    for place, value in enumerate(values):
        producer.produce(topic, value, str(place).encode())
    assert producer.flush(20) == 0


def read(bootstrap: str, topic: str) -> list[dict[str, Any]]:
    return [orjson.loads(message.value() or b"") for message in read_all(bootstrap, topic)]


def event(number: int, text: str, **fields: object) -> bytes:
    return orjson.dumps({"id": f"e{number}", "ts": "2026-03-01T12:00:00Z", "text": text, **fields})


@pytest.mark.slow
def test_a_worker_from_its_start_to_its_stop(
    broker: EmbeddedBroker, tiny_releases: dict[str, Path], start: Start
) -> None:
    """Scores all three sources, listens on its metrics port alone, and commits everything before it ends with 0."""
    at = broker.bootstrap
    port = free_port()
    worker = start(at, METRICS__PORT=port, **releases(tiny_releases))
    send(at, "news", [event(n, f"bank card number {n}", symbols=["ACME", "XY"]) for n in range(50)] + [b"\xff", b"{}"])
    send(at, "chat", [event(n, f"shares parcel {n}", conversation=f"C{n}") for n in range(50)])
    send(at, "transactions", [event(n, f"refund rent number {n}", account=f"A{n % 5}") for n in range(50)])
    worker.until(lambda: len(read(at, "predictions")) == 150 and len(read(at, "observations")) == 100)
    worker.until(lambda: sum(max(0, one) for one in committed(at, "streamgauge", "observations")) == 100)

    assert listening(worker.process.pid) == [("0100007F", port)]
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    assert 'streamgauge_predictions_total{source="chat",task="intent"} 50.0' in page
    assert 'streamgauge_dead_letters_total{error="NotUtf8",source="news",stage="intake"} 1.0' in page
    assert "streamgauge_ready 1.0" in page

    assert worker.stop() == 0, worker.log()
    predictions = read(at, "predictions")
    assert {(one["source"]["name"], one["task"]) for one in predictions} == {
        ("news", "sentiment"), ("chat", "intent"), ("transactions", "risk"),
    }  # fmt: skip
    assert len({one["id"] for one in predictions}) == len(predictions) == 150
    assert {one["label"] for one in predictions if one["task"] == "sentiment"} == {"negative"}  # as it was trained
    assert {one["error"] for one in read(at, "dead-letters")} == {"NotUtf8", "EmptyText"}
    assert len(read(at, "routes")) == 50
    for topic, count in (("news", 52), ("chat", 50), ("transactions", 50), ("observations", 100)):
        assert sum(max(0, one) for one in committed(at, "streamgauge", topic)) == count, topic
    assert "ERROR" not in worker.log() and "Traceback" not in worker.log(), worker.log()


@pytest.mark.slow
def test_a_worker_told_to_stop_while_it_starts_ends_with_0(
    broker: EmbeddedBroker, tiny_releases: dict[str, Path], start: Start
) -> None:
    worker = start(broker.bootstrap, **releases(tiny_releases))
    worker.until(lambda: "release " in worker.log())  # its first model is loaded
    assert worker.stop() == 0, worker.log()


@pytest.mark.slow
def test_the_log_tells_where_the_metrics_are_and_how_it_stopped(
    broker: EmbeddedBroker, tiny_releases: dict[str, Path], start: Start
) -> None:
    """With port 0 the log is the only place that knows the port."""
    worker = start(broker.bootstrap, **releases(tiny_releases))
    worker.until(lambda: len(listening(worker.process.pid)) == 1)
    ((_, port),) = listening(worker.process.pid)
    assert worker.stop() == 0, worker.log()
    assert f"metrics on http://127.0.0.1:{port}/metrics" in worker.log()
    assert "stopping: finishing what is in flight" in worker.log()
    assert "stopped" in worker.log().splitlines()[-1]


@pytest.mark.slow
def test_what_nobody_expected_ends_it_with_70(
    broker: EmbeddedBroker, tiny_releases: dict[str, Path], start: Start
) -> None:
    """Here a record that no worker can have written; the log says what to do about it."""
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    producer.produce("surge-state", b"[]", b"meta", 0)
    producer.produce("observations", b"{}", b"ACME", 0)
    assert producer.flush(20) == 0
    worker = start(broker.bootstrap, **releases(tiny_releases))
    assert worker.ends() == 70
    assert "the progress record cannot be read" in worker.log() and "empty the surge-state topic" in worker.log()
    assert "ending with code 70" in worker.log() and "Traceback" in worker.log()


@pytest.mark.slow
def test_too_much_memory_ends_it_in_order_with_70(
    broker: EmbeddedBroker, tiny_releases: dict[str, Path], start: Start
) -> None:
    at = broker.bootstrap
    worker = start(at, WORKER__MAX_MEMORY_MIB=64, **releases(tiny_releases))
    send(at, "chat", [event(n, f"shares parcel {n}", conversation=f"C{n}") for n in range(50)])
    assert worker.ends() == 70
    assert "above worker.max_memory_mib = 64" in worker.log()
    assert "stopping: finishing what is in flight" in worker.log() and "stopped" in worker.log().splitlines()[-1]
    assert sum(max(0, one) for one in committed(at, "streamgauge", "chat")) == 50


@pytest.mark.slow
def test_a_worker_that_is_stopped_and_continued_goes_on(
    broker: EmbeddedBroker, tiny_releases: dict[str, Path], start: Start
) -> None:
    """Longer than the limits on the event loop and on standing still, with work before it."""
    at = broker.bootstrap
    worker = start(at, WORKER__STALL_S=5, BROKER__SESSION_TIMEOUT_S=60, **releases(tiny_releases))
    worker.until(lambda: len(listening(worker.process.pid)) == 1)
    send(at, "chat", [event(n, f"shares parcel {n}", conversation=f"C{n}") for n in range(50)])
    worker.until(lambda: len(read(at, "predictions")) == 50)
    worker.process.send_signal(signal.SIGSTOP)
    send(at, "chat", [event(n, f"shares parcel {n}", conversation=f"C{n}") for n in range(50, 90)])
    time.sleep(LOOP_STALL_S + 2)
    worker.process.send_signal(signal.SIGCONT)
    worker.until(lambda: len(read(at, "predictions")) >= 90)
    assert worker.stop() == 0, worker.log()


def test_topics_that_are_missing_end_it_with_2_and_the_command(embedded: EmbeddedBroker, start: Start) -> None:
    worker = start(embedded.bootstrap)
    assert worker.ends() == 2
    assert "topics missing: news, chat, transactions" in worker.log()
    assert "run: streamgauge topics create" in worker.log()
    assert "Traceback" not in worker.log()


def test_a_broker_that_is_away_ends_it_with_75(start: Start) -> None:
    address = f"127.0.0.1:{free_port()}"
    worker = start(address)
    assert worker.ends() == 75
    assert address in worker.log()
    assert "Traceback" not in worker.log()


def test_a_wrong_configuration_ends_it_with_2(start: Start) -> None:
    worker = start("127.0.0.1:1", BATCHING__MAX_WAIT_MS="-5")
    assert worker.ends() == 2
    assert "batching.max_wait_ms" in worker.log() and "STREAMGAUGE_BATCHING__MAX_WAIT_MS" in worker.log()
    assert "Traceback" not in worker.log()


def test_a_release_that_is_not_there_ends_it_with_2(broker: EmbeddedBroker, start: Start, tmp_path: Path) -> None:
    worker = start(broker.bootstrap, **{f"MODELS__RELEASES__{task}": tmp_path / "nowhere" for task in
                                        ("SENTIMENT", "INTENT", "RISK")})  # fmt: skip
    assert worker.ends() == 2
    assert str(tmp_path / "nowhere") in worker.log()
    assert "Traceback" not in worker.log()


@pytest.mark.slow
def test_a_taken_metrics_port_is_named(broker: EmbeddedBroker, tiny_releases: dict[str, Path], start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        worker = start(broker.bootstrap, METRICS__PORT=port, **releases(tiny_releases))
        assert worker.ends() == 2
    assert "metrics.port" in worker.log() and str(port) in worker.log()
    assert "Traceback" not in worker.log()


def test_a_password_shows_nowhere_in_the_log(start: Start) -> None:
    """A broker that knows no login: the clients' own messages are in the log, the password is not."""
    with embedded_broker({}) as plain:
        worker = start(plain.bootstrap, BROKER__USERNAME="desk", BROKER__PASSWORD=SECRET,
                       BROKER__ALLOW_PLAINTEXT_CREDENTIALS="true", BROKER__MECHANISM="PLAIN")  # fmt: skip
        assert worker.ends() == 2
    assert worker.log()
    assert SECRET not in worker.log()


LOADS_FOR_EVER = """
import threading, uvloop
from streams.settings import load_settings
from streams.worker import serve

def load(settings):
    print("loading", flush=True)
    threading.Event().wait()

uvloop.run(serve(load_settings(), load))
"""


def test_told_to_stop_while_models_load_it_stops_at_once(broker: EmbeddedBroker) -> None:
    """Measuring runtimes on a busy machine takes longer than a worker has to stop. What serves is asked before."""
    env = os.environ | {"STREAMGAUGE_BROKER__BOOTSTRAP": broker.bootstrap}
    process = subprocess.Popen([sys.executable, "-c", LOADS_FOR_EVER], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.terminate()
    assert process.wait(20) == 0
    process.stdout.close()
