"""The broker is killed while events flow: the worker waits and loses nothing; past the limit it ends with 75."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from streams.broker import KafkaBroker
from streams.settings import load_settings
from streams.topics import create_topics
from tests.kafka.harness import Reader, Sent, send_events, start, stop

EVENTS, SECONDS = 2000, 20.0
AWAY_S = 12.0  # twice the group's patience, and more than the watchdog on standing still has

pytestmark = pytest.mark.kafka


def test_a_killed_broker_loses_nothing_once_it_is_back(
    kafka: KafkaBroker, tiny_releases: dict[str, Path], tmp_path: Path
) -> None:
    """With a broker of its own: the one of the session (here for its skip) is nobody's to kill."""
    with KafkaBroker() as broker:
        lines = ["[broker]", f'bootstrap = "{broker.bootstrap}"', "session_timeout_s = 6", "[metrics]", "port = 0"]
        lines += ["[worker]", "stall_s = 5"]
        lines += ["[models.releases]"] + [f'{task} = "{path}"' for task, path in tiny_releases.items()]
        file = tmp_path / "streamgauge.toml"
        file.write_text("\n".join(lines))
        settings = load_settings(file)
        create_topics(settings)
        reader = Reader(broker.bootstrap, settings.topics.predictions, settings.topics.dead_letters, 4)
        reader.start()
        worker = start(["-m", "streams.cli", "worker", "--config", str(file)], {}, tmp_path / "worker.log")
        sent: list[Sent] = []
        topics = [source.topic for source in settings.active_sources.values()]
        sender = threading.Thread(
            target=lambda: sent.append(send_events(broker.bootstrap, topics, EVENTS, 0.02, SECONDS, seed=3))
        )
        try:
            sender.start()
            assert reader.grows(60), (tmp_path / "worker.log").read_text()
            broker.kill()
            assert not reader.grows(AWAY_S), "something answered for a dead broker"
            broker.start()
            sender.join(SECONDS + 90)
            reader.wait_for(sent[0], 90)
        finally:
            code = stop(worker)
            reader.close()
    seen = reader.seen
    print(f"\n{EVENTS} events, the broker killed once: duplicates {seen.duplicates()}")
    assert set(sent[0].good.values()) == seen.predictions.keys()
    assert sent[0].bad.keys() == seen.dead.keys()
    assert code == 0
    assert "ended with code" not in (tmp_path / "worker.log").read_text(), "an outage is to be waited out"


@pytest.mark.parametrize("busy", [True, False], ids=["mid-flow", "idle"])
def test_a_broker_away_for_longer_than_the_limit_ends_the_worker_with_75(
    busy: bool, kafka: KafkaBroker, tiny_releases: dict[str, Path], tmp_path: Path
) -> None:
    with KafkaBroker() as broker:
        lines = ["[broker]", f'bootstrap = "{broker.bootstrap}"', "session_timeout_s = 6", "delivery_timeout_s = 8"]
        lines += ["[metrics]", "port = 0", "[models.releases]"]
        lines += [f'{task} = "{path}"' for task, path in tiny_releases.items()]
        file, log = tmp_path / "streamgauge.toml", tmp_path / "worker.log"
        file.write_text("\n".join(lines))
        settings = load_settings(file)
        create_topics(settings)
        reader = Reader(broker.bootstrap, settings.topics.predictions, settings.topics.dead_letters, 4)
        reader.start()
        worker = start(["-m", "streams.worker"], {"STREAMGAUGE_CONFIG": str(file)}, log)
        try:
            sent = send_events(broker.bootstrap, [settings.sources["chat"].topic], 50, 0, 0.1, seed=1)
            reader.wait_for(sent, 90)
            assert reader.seen.predictions.keys() == set(sent.good.values()), log.read_text()
            if busy:
                worker.send_signal(signal.SIGSTOP)
                send_events(broker.bootstrap, [settings.sources["chat"].topic], 3000, 0, 0.1, seed=2)
                worker.send_signal(signal.SIGCONT)
            broker.kill()
            assert worker.wait(60) == 75, log.read_text()
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
            reader.close()
    assert "broker.delivery_timeout_s" in log.read_text() or "was not acknowledged" in log.read_text()
