"""The storms that every change must weather, on real Kafka, and the control that must not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streams.broker import KafkaBroker

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.kafka


def storm(tmp_path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Run one as a person would; its exit code and last line."""
    command = [sys.executable, "-m", "tests.storm", "--broker", "kafka", "--json", "--directory", str(tmp_path)]
    done = subprocess.run([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=1500)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_ten_faults_of_processes_lose_nothing(kafka: KafkaBroker, tmp_path: Path) -> None:
    code, found = storm(tmp_path, "--events", "20000", "--faults", "10", "--poison", "400", "--seed", "11")
    assert (code, found["lost"], found["dead_letters"], found["faults"]) == (0, 0, 400, 10), found
    assert found["kinds"] == {"kill": 4, "term": 2, "pause": 2, "model-fails": 1, "task-fails": 1}


def test_faults_of_three_brokers_lose_nothing(kafka: KafkaBroker, tmp_path: Path) -> None:
    code, found = storm(
        tmp_path, "--only", "broker", "--events", "3000", "--faults", "6", "--poison", "60", "--seed", "4"
    )
    assert (code, found["lost"], found["dead_letters"], found["faults"]) == (0, 0, 60, 6), found


def test_a_naive_worker_loses_events_in_the_same_storm(kafka: KafkaBroker, tmp_path: Path) -> None:
    """With poison: a kill alone may leave `take()` without loss, an event that it cannot read never does."""
    code, found = storm(
        tmp_path, "--control", "naive", "--events", "3000", "--faults", "4", "--poison", "60", "--seed", "1"
    )
    assert code == 0, "the storm does not see loss"
    assert found["lost"] > 0
