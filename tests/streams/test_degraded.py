"""A real worker process whose model falls ill while it runs: what it does, what it says, and that nothing is lost."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.releases import MODEL
from streams.embedded import EmbeddedBroker, embedded_broker
from streams.settings import load_settings
from streams.topics import wanted_topics
from tests.streams.handmade import make_release
from tests.streams.test_worker import WorkerProcess, event, read, send
from tests.streams.wire import committed, free_port

pytestmark = pytest.mark.slow

HEADS = {"sentiment": ("negative", "neutral"), "intent": ("ask", "tell"), "risk": ("benign", "fraud")}


class SickWorker(WorkerProcess):
    """A worker whose chosen runtimes do as `is_` says."""

    module = "tests.streams.sick_worker"

    def __init__(self, folder: Path, bootstrap: str, release: Path, **settings: object) -> None:
        self.state = folder / "state"
        self.port = free_port()
        releases = {f"MODELS__RELEASES__{task.upper()}": release for task in HEADS}
        super().__init__(
            folder, bootstrap, METRICS__PORT=self.port, MODELS__RUNTIME="onnxruntime-fp32", **releases, **settings
        )

    def is_(self, state: str) -> None:
        """Written whole: the worker reads at any moment."""
        new = self.state.with_suffix(".new")
        new.write_text(state)
        new.replace(self.state)

    def ready(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=10) as answer:
                return {**json.load(answer), "code": answer.status}
        except urllib.error.HTTPError as refusal:
            return {**json.load(refusal), "code": refusal.code}
        except OSError:
            return {"status": "down"}

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            return str(answer.read(), "utf-8")


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with embedded_broker({one.name: one.partitions for one in wanted_topics(load_settings(env={}))}) as one:
        yield one


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return make_release(tmp_path / "release", HEADS)


@pytest.fixture
def start(
    tmp_path: Path, broker: EmbeddedBroker, release: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SickWorker]]:
    running: list[SickWorker] = []
    monkeypatch.setenv("SICK_FILE", str(tmp_path / "state"))

    def run(**settings: object) -> SickWorker:
        (tmp_path / "state").write_text("well")
        running.append(SickWorker(tmp_path, broker.bootstrap, release, **settings))
        running[-1].until(lambda: running[-1].ready()["status"] == "ready", 120)
        return running[-1]

    yield run
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


def scored(broker: EmbeddedBroker, count: int) -> Callable[[], bool]:
    return lambda: len(read(broker.bootstrap, "predictions")) >= count


def feed(broker: EmbeddedBroker, first: int, count: int = 10) -> None:
    """Transactions with these numbers; every tenth is poison."""
    texts = [(number, "mule rent" if number % 10 == 9 else "rent falls") for number in range(first, first + count)]
    send(broker.bootstrap, "transactions", [event(number, text, account=f"A{number}") for number, text in texts])


NAME = "intent+risk+sentiment"


def test_an_ill_model_goes_down_the_ladder_and_up_again(
    broker: EmbeddedBroker, release: Path, start: Callable[..., SickWorker]
) -> None:
    """Chosen, reference, hold as the release's file is damaged too, then the file is mended, then the runtime."""
    worker = start()
    feed(broker, 0)
    worker.until(scored(broker, 9))

    worker.is_("error")
    feed(broker, 10)
    worker.until(scored(broker, 18))
    worker.until(lambda: worker.ready()["status"] == "degraded")
    said = worker.ready()
    assert said["code"] == 200
    assert said["models"][NAME]["state"] == "reference"
    assert "CUDA failure 719" in said["models"][NAME]["problems"]["chosen"]

    worker.is_("well")
    worker.until(lambda: worker.ready()["status"] == "ready")
    whole = (release / MODEL).read_bytes()
    (release / MODEL).write_bytes(whole[: len(whole) // 2])
    worker.is_("error")
    feed(broker, 20)
    worker.until(lambda: worker.ready()["status"] == "holding")
    worker.until(lambda: "reference" in worker.ready()["models"][NAME]["problems"])
    said = worker.ready()
    assert said["code"] == 503
    assert "is not the file this release was made with" in said["models"][NAME]["problems"]["reference"]
    assert f'streamgauge_model_state{{state="holding",task="{NAME}"}} 1.0' in worker.metrics()
    assert "streamgauge_ready 0.0" in worker.metrics()
    assert len(read(broker.bootstrap, "predictions")) == 18

    (release / MODEL).write_bytes(whole)
    worker.until(scored(broker, 27))
    worker.is_("well")
    worker.until(lambda: worker.ready()["status"] == "ready")
    feed(broker, 30)
    worker.until(scored(broker, 36))
    page = worker.metrics()
    assert f'streamgauge_model_illnesses_total{{runtime="chosen",task="{NAME}"}} 2.0' in page
    assert worker.stop() == 0, worker.log()

    predictions, dead = read(broker.bootstrap, "predictions"), read(broker.bootstrap, "dead-letters")
    assert sorted(int(one["event_id"][1:]) for one in predictions) == [n for n in range(40) if n % 10 != 9]
    assert [one["stage"] for one in dead] == ["scoring"] * 4  # the poison, and nothing but the poison
    assert all("a word the model cannot take" in one["message"] for one in dead)
    assert sum(max(0, one) for one in committed(broker.bootstrap, "streamgauge", "transactions")) == 40
    assert worker.log().count("its texts are held") == 2
    assert "Traceback" not in worker.log()


def test_a_model_that_hangs_ends_the_worker_with_70_and_the_next_one_goes_on(
    broker: EmbeddedBroker, start: Callable[..., SickWorker]
) -> None:
    worker = start(MODELS__HANG_S=5)
    worker.is_("hang")
    feed(broker, 0)
    assert worker.ends() == 70
    assert "hangs" in worker.log() and "ending with code 70" in worker.log()
    assert read(broker.bootstrap, "predictions") == []
    worker = start()
    worker.until(scored(broker, 9))
    assert worker.stop() == 0, worker.log()
    assert sorted(int(one["event_id"][1:]) for one in read(broker.bootstrap, "predictions")) == list(range(9))
    assert len(read(broker.bootstrap, "dead-letters")) == 1


def test_held_beyond_its_limit_the_worker_ends_with_70_and_has_committed_nothing(
    broker: EmbeddedBroker, release: Path, start: Callable[..., SickWorker]
) -> None:
    worker = start(MODELS__HOLD_LIMIT_S=3)
    (release / MODEL).write_bytes(b"broken")
    worker.is_("error")
    feed(broker, 0, 5)
    assert worker.ends() == 70
    assert "models.hold_limit_s = 3" in worker.log()
    assert read(broker.bootstrap, "predictions") == read(broker.bootstrap, "dead-letters") == []
    assert sum(max(0, one) for one in committed(broker.bootstrap, "streamgauge", "transactions")) == 0
