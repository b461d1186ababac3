"""Dead letters through real Kafka and back: mended ones become predictions, incurable ones come to rest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streams.broker import KafkaBroker
from streams.settings import TOPICS, Settings, load_settings
from streams.topics import create_topics
from tests.kafka.harness import ROOT, start, stop
from tests.streams.commands import Done, Run, runner
from tests.streams.wire import read_all
from tests.whereabouts import SURE

PARTITIONS = 2
FINE, LONG, BROKEN = 5, 6, 3

pytestmark = pytest.mark.kafka


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner(monkeypatch, capsys, tmp_path)


@pytest.fixture
def configured(kafka: KafkaBroker, tiny_releases: dict[str, Path], tmp_path: Path) -> Callable[[int], Path]:
    """Makes a configuration of one chat source that takes texts up to so many characters."""
    name = f"letters-{uuid.uuid4().hex[:8]}"

    def make(max_text_chars: int) -> Path:
        lines = ["[broker]", f'bootstrap = "{kafka.bootstrap}"', f'group = "{name}"', "session_timeout_s = 6"]
        lines += ["[topics]", f"partitions = {PARTITIONS}"]
        lines += [f'{output} = "{name}-{output}"' for output in TOPICS]
        lines += [
            "[intake]",
            f"max_text_chars = {max_text_chars}",
            "[metrics]",
            "port = 0",
            "[models]",
            'device = "cpu"',
        ]
        lines += [f'releases.intent = "{tiny_releases["intent"]}"', "[sources.chat]", f'topic = "{name}-chat"']
        lines += ["[sources.news]", "enabled = false", "[sources.transactions]", "enabled = false"]
        file = tmp_path / f"limit-{max_text_chars}.toml"
        file.write_text("\n".join(lines))
        return file

    assert not [outcome for outcome in create_topics(load_settings(make(100))) if outcome.todo]
    return make


def send(settings: Settings, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": settings.broker.bootstrap, **SURE})
    for number, value in enumerate(values):
        producer.produce(settings.sources["chat"].topic, value, b"c%d" % (number % 4), headers=[("n", b"%d" % number)])
    assert producer.flush(30) == 0


def outputs(settings: Settings, name: str) -> list[dict[str, Any]]:
    """The values in an output topic; marks left out."""
    messages = read_all(settings.broker.bootstrap, getattr(settings.topics, name), PARTITIONS)
    return [json.loads(value) for message in messages if (value := message.value()) is not None]


def wait_for(settings: Settings, name: str, count: int, timeout_s: float = 90) -> list[dict[str, Any]]:
    """The values, once so many different ones are there."""
    end_s = time.monotonic() + timeout_s
    while True:
        found = outputs(settings, name)
        if len({one["id"] for one in found}) >= count:
            return found
        assert time.monotonic() < end_s, f"only {len(found)} of {count} {name} in {timeout_s} s"
        time.sleep(0.2)


def worker(config: Path) -> subprocess.Popen[bytes]:
    return start(["-m", "streams.cli", "worker", "--config", str(config)], {}, config.with_suffix(".log"))


def last(done: Done) -> Any:
    assert done.out, done.err
    return json.loads(done.out.splitlines()[-1])


def event(number: int, text: str) -> bytes:
    return json.dumps({"id": f"e{number}", "text": text}).encode()


def test_letters_are_mended_and_redriven_and_what_stays_broken_comes_to_rest(
    configured: Callable[[int], Path], run: Run
) -> None:
    narrow, wide = configured(100), configured(20_000)
    settings = load_settings(narrow)
    values = [event(number, "where is my card") for number in range(FINE)]
    values += [event(100 + number, "a long story " * 50) for number in range(LONG)]
    values += [b"\xff\x1b[2J broken %d" % number for number in range(BROKEN)]
    send(settings, values)
    first = worker(narrow)
    try:
        wait_for(settings, "dead_letters", LONG + BROKEN)
        wait_for(settings, "predictions", FINE)
    finally:
        assert stop(first) == 0

    found = last(run("dead-letters", "list", "--config", narrow, "--json"))
    assert Counter(one["error"] for one in found["letters"]) == {"TooLarge": LONG, "NotUtf8": BROKEN}
    seen_first = {one["origin"]: one["first_seen_at"] for one in found["letters"]}
    shown = run("dead-letters", "show", found["letters"][-1]["id"], "--config", narrow)
    assert shown.code == 0 and "\x1b" not in shown.out and "trace_id" in shown.out

    second = worker(wide)  # the limit is mended
    try:
        for turn in (1, 2, 3):
            done = run("dead-letters", "redrive", "--yes", "--json", "--config", wide)
            went = LONG + BROKEN if turn == 1 else BROKEN
            assert (done.code, last(done)["redriven"], last(done)["failed"]) == (0, went, 0), done.err
            letters = wait_for(settings, "dead_letters", LONG + BROKEN + turn * BROKEN)
        predictions = wait_for(settings, "predictions", FINE + LONG)
        refused = run("dead-letters", "redrive", "--yes", "--json", "--config", wide)
        assert (refused.code, last(refused)["redriven"], last(refused)["refused_by"]) == (1, 0, {"too-often": BROKEN})
        assert "redriven 3 times and failed again; the most is 3" in refused.err
    finally:
        assert stop(second) == 0

    events = read_all(settings.broker.bootstrap, settings.sources["chat"].topic, PARTITIONS)
    assert len(events) == len(values) + LONG + 3 * BROKEN, "it went round more often than it may"
    assert Counter(message.value() for message in events) == Counter(values) + Counter(values[FINE:]) + Counter(
        {value: 2 for value in values[-BROKEN:]}
    )
    mended = [one for one in predictions if "/redriven-" in one["id"]]
    assert {one["event_id"] for one in mended} == {f"e{100 + number}" for number in range(LONG)}
    assert {one["id"].split("/redriven-")[0] for one in mended} < set(seen_first)
    again = [one for one in letters if one["redrives"]]
    assert Counter(one["redrives"] for one in again) == {1: BROKEN, 2: BROKEN, 3: BROKEN}
    assert {(one["origin"], one["first_seen_at"]) for one in again} <= set(seen_first.items())
    assert len({one["trace_id"] for one in letters}) == LONG + BROKEN, "a trace ends at a redrive"


def test_a_redrive_that_is_killed_is_run_again_and_each_output_id_is_there_once(
    configured: Callable[[int], Path], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 300
    narrow, wide = configured(10), configured(20_000)
    settings = load_settings(narrow)
    send(settings, [event(number, f"where is my card number {number}") for number in range(count)])
    first = worker(narrow)
    try:
        wait_for(settings, "dead_letters", count)
    finally:
        assert stop(first) == 0
    arguments = ["dead-letters", "redrive", "--yes", "--rate-per-s", "100", "--config", str(wide)]
    topic = settings.sources["chat"].topic
    for _ in range(2):
        before = len(read_all(settings.broker.bootstrap, topic, PARTITIONS))
        killed = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        end_s = time.monotonic() + 60
        while len(read_all(settings.broker.bootstrap, topic, PARTITIONS)) < before + 50:
            assert time.monotonic() < end_s and killed.poll() is None
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    done = run("dead-letters", "redrive", "--yes", "--json", "--rate-per-s", 1000, "--config", wide)
    assert done.code == 0, done.err
    assert last(done)["redriven"] + last(done)["before"] >= count
    sent = len(read_all(settings.broker.bootstrap, topic, PARTITIONS)) - count
    second = worker(wide)
    try:
        end_s = time.monotonic() + 90
        while len(predictions := outputs(settings, "predictions")) < sent:
            assert time.monotonic() < end_s, f"only {len(predictions)} of {sent} predictions in 90 s"
            time.sleep(0.2)
    finally:
        assert stop(second) == 0
    with capsys.disabled():
        print(f"\n{count} letters, the redrive killed twice: {sent - count} events went twice")
    assert len({one["id"] for one in predictions}) == count, "a copy has an id of its own"
    assert {one["event_id"] for one in predictions} == {f"e{number}" for number in range(count)}
    assert last(run("dead-letters", "list", "--config", wide, "--json"))["matching"] == 0
