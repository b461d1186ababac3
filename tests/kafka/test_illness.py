"""Fifty illnesses of the model while events flow through real Kafka: nothing lost, no dead letter but the poison."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from models.releases import MODEL
from streams.broker import KafkaBroker
from tests.kafka.flow import HEADS, Sender, asked, configured, reading
from tests.kafka.harness import start, stop
from tests.streams.handmade import make_release

ILLNESSES, POISON_SHARE, SEED = 50, 0.01, 17
STATES = ("error", "flaky", "memory", "slow", "damaged")  # the last: every run fails, and the release's file is broken

pytestmark = pytest.mark.kafka


class Patient:
    """The release and the file that says how its chosen runtime does."""

    def __init__(self, folder: Path) -> None:
        self.release = make_release(folder / "release", HEADS)
        self.file = folder / "state"
        self._whole = (self.release / MODEL).read_bytes()
        self.is_("well")

    def is_(self, state: str) -> None:
        """Both files are replaced whole: the worker reads them at any moment."""
        broken = state == "damaged"
        self._write(self.release / MODEL, self._whole[: 100 if broken else None])
        self._write(self.file, b"error" if broken else state.encode())

    def _write(self, path: Path, content: bytes) -> None:
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(content)
        new.replace(path)


def wait_for_ready(port: int) -> None:
    """Until the chosen runtime serves again: only then is the next illness one."""
    end_s = time.monotonic() + 60
    while True:
        with suppress(OSError):
            if json.loads(asked(port, "ready"))["status"] == "ready":
                return
        assert time.monotonic() < end_s, "the model did not come back within 60 s"
        time.sleep(0.05)


def test_fifty_illnesses_lose_nothing_and_blame_no_event(kafka: KafkaBroker, tmp_path: Path) -> None:
    patient, rng, done = Patient(tmp_path), random.Random(SEED), Counter[str]()
    settings = configured(tmp_path, kafka.bootstrap, patient.release, f"ill-{os.getpid()}")
    env = {"STREAMGAUGE_CONFIG": str(tmp_path / "streamgauge.toml"), "SICK_FILE": str(patient.file)}
    worker = start(["-m", "tests.streams.sick_worker"], env, tmp_path / "worker.log")
    log = tmp_path / "worker.log"
    sender = Sender(settings, SEED, POISON_SHARE)
    with reading(settings) as reader:
        try:
            sender.start()
            assert reader.grows(90), log.read_text()
            for _ in range(ILLNESSES):
                state = rng.choice(STATES)
                patient.is_(state)
                time.sleep(rng.uniform(0.2, 1.5))
                patient.is_("well")
                time.sleep(rng.uniform(0.1, 0.6))
                done[state] += 1
                wait_for_ready(settings.metrics.port)
            page = asked(settings.metrics.port, "metrics")
            sent = sender.end()
            reader.wait_for(sent, 120)
        finally:
            patient.is_("well")
            code = stop(worker)
    seen = reader.seen
    lost = set(sent.good.values()) - seen.predictions.keys()
    print(
        f"\n{len(sent.good)} good events and {len(sent.bad)} poisoned, illnesses {dict(done)}: lost {len(lost)}, "
        f"dead letters {len(seen.dead)}, duplicates {seen.duplicates()}, "
        f"times held {log.read_text().count('texts are held')}"
    )
    assert not lost
    assert seen.dead.keys() == sent.bad.keys(), "an illness made a dead letter, or hid one"
    assert seen.duplicates() == 0
    assert all(letter["stage"] == "scoring" for letters in seen.dead.values() for letter in letters)
    assert code == 0
    illnesses = re.search(r'model_illnesses_total\{runtime="chosen".*\} (\S+)', page)
    assert illnesses is not None and float(illnesses[1]) >= done["error"] + done["damaged"] > 10
