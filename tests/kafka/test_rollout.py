"""Releases swapped in a running worker while events flow through real Kafka."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import orjson
import pytest

from models.releases import MANIFEST, MODEL, file_sha256, read_manifest
from streams.broker import KafkaBroker
from streams.events import Release, iso
from streams.learning.releases_topic import write
from streams.serving import in_share
from streams.settings import Settings
from tests.kafka.flow import HEADS, Sender, asked, configured, reading
from tests.kafka.harness import Reader, start, stop
from tests.streams.handmade import make_release
from tests.streams.wire import read_all

SEED = 17
SWAPS = ("second", "broken", "first", "gone", "second", "first", "third")
BROKEN = {"broken", "gone"}
SHARE = 0.3

pytestmark = pytest.mark.kafka


class Shelf:
    """Releases on disk, good and bad, and their records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("first", "second", "third", "broken"):
            make_release(folder / name, HEADS, name=name)
        with (folder / "broken" / MODEL).open("ab") as file:
            file.write(b"one bit more")

    def record(self, name: str, task: str, promoted_at: str) -> Release:
        there = self.folder / ("first" if name == "gone" else name)
        sha256 = file_sha256(there / MANIFEST)[:: -1 if name == "gone" else 1]
        return {
            "task": task, "role": "champion", "mode": "serve", "share": 1.0, "reference": str(self.folder / name),
            "release": read_manifest(there).release, "sha256": sha256,
            "promoted_at": promoted_at, "promoted_by": "test", "previous": None,
        }  # fmt: skip


def until(true: Callable[[], bool], log: Path, timeout_s: float = 60) -> None:
    end_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.1)


class Worker:
    """A worker on real Kafka that starts with the release `first`, and the events that flow through it."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self.shelf, self.log = Shelf(folder), folder / "worker.log"
        self.settings = configured(folder, bootstrap, folder / "first", f"rollout-{os.getpid()}-{folder.name}")
        self.sender = Sender(self.settings, SEED)
        self._env = {"STREAMGAUGE_CONFIG": str(folder / "streamgauge.toml"), "STREAMGAUGE_HOME": str(folder / "home")}
        self.page = ""

    def runs(self, meanwhile: Callable[[Reader], None]) -> int:
        """Do something while events flow; nothing may be lost or come twice. Returns how many events there were."""
        worker = start(["-m", "streams.worker"], self._env, self.log)
        with reading(self.settings) as reader:
            try:
                self.sender.start()
                assert reader.grows(90), self.log.read_text()
                meanwhile(reader)
                sent = self.sender.end()
                reader.wait_for(sent, 60)
                self.page = asked(self.settings.metrics.port, "metrics")
            finally:
                code = stop(worker)
        assert code == 0
        assert not set(sent.good.values()) - reader.seen.predictions.keys(), "lost"
        assert reader.seen.duplicates() == 0
        return len(sent.good)


def test_releases_swap_while_events_flow(kafka: KafkaBroker, tmp_path: Path) -> None:
    worker = Worker(tmp_path, kafka.bootstrap)

    def swaps(reader: Reader) -> None:
        for name in SWAPS:
            swap(worker.settings, worker.shelf, name, worker.log, worker.settings.metrics.port)
            assert reader.grows(20), f"nothing comes after {name}: {worker.log.read_text()}"

    events = worker.runs(swaps)
    changes = judged(worker.settings, worker.log)
    print(f"\n{events} events, {len(SWAPS)} promotions, {len(BROKEN)} of them broken: {changes} changes in all")
    assert changes >= 3 * 4 * 3, "hardly a partition saw the swaps"
    shown = dict(re.findall(r'release_effective_offset\{.*release="(\S+)".*task="(\w+)".*\} ', worker.page))
    assert set(shown) == {"sentiment-intent-risk-third"}


def test_a_canary_serves_its_keys_alone_and_leaves_pairs(kafka: KafkaBroker, tmp_path: Path) -> None:
    worker = Worker(tmp_path, kafka.bootstrap)
    settings, log = worker.settings, worker.log

    def canary(reader: Reader) -> None:
        record = worker.shelf.record("second", "risk", iso(time.time()))
        record |= {"role": "challenger", "mode": "canary", "share": SHARE}
        write(settings, {("risk", "challenger"): record})
        until(lambda: "as canary" in log.read_text(), log)
        for _ in range(4):
            assert reader.grows(20), log.read_text()
        write(settings, {("risk", "challenger"): None})
        until(lambda: "scores no more" in log.read_text(), log)
        assert reader.grows(20), log.read_text()

    events = worker.runs(canary)
    rival, keys = "sentiment-intent-risk-second", set[bytes | None]()
    for message in read_all(settings.broker.bootstrap, settings.topics.predictions):
        one = orjson.loads(message.value() or b"")
        if one["release"] == rival:
            assert one["task"] == "risk"
            keys.add(message.key())
    pairs = [orjson.loads(one.value() or b"") for one in read_all(settings.broker.bootstrap, settings.topics.shadow)]
    print(f"\n{events} events, {len(keys)} served by the canary, {len(pairs)} pairs")
    assert len(keys) > 20
    assert all(in_share((key or b"").decode(), rival, SHARE) for key in keys)
    assert pairs and {(one["champion"]["release"], one["challenger"]["release"]) for one in pairs} == {
        ("sentiment-intent-risk-first", rival)
    }


def swap(settings: Settings, shelf: Shelf, name: str, log: Path, port: int) -> None:
    """All tasks of the release at once; wait until it serves, or is refused and says so."""
    refused = 'release_refused{role="champion",task="risk"} 1.0'
    before = log.read_text().count("serves on")
    promoted_at = iso(time.time())
    write(settings, {(task, "champion"): shelf.record(name, task, promoted_at) for task in HEADS})
    if name in BROKEN:
        until(lambda: refused in asked(port, "metrics"), log)
        assert log.read_text().count("serves on") == before
    else:
        until(lambda: log.read_text().count("serves on") == before + len(HEADS), log)
        assert refused not in asked(port, "metrics")


def judged(settings: Settings, log: Path) -> int:
    """Per partition and task the release changes exactly where the log says; returns how often in all."""
    told = re.findall(r"(\w+): release (\S+) from (\S+)/(\d+)/(\d+) on, after (\S+)", log.read_text())
    said = [(task, topic, int(part), int(at), before, now) for task, now, topic, part, at, before in told]
    runs: dict[tuple[str, str, int], list[tuple[int, str]]] = {}
    for message in read_all(settings.broker.bootstrap, settings.topics.predictions):
        one = orjson.loads(message.value() or b"")
        place = (one["task"], one["source"]["topic"], one["source"]["partition"])
        runs.setdefault(place, []).append((one["source"]["offset"], one["release"]))
    seen = []
    for place, found in runs.items():
        found.sort()
        for (_, before), (at, now) in pairwise(found):
            if now != before:
                seen.append((*place, at, before, now))
    assert sorted(seen) == sorted(said)
    return len(seen)
