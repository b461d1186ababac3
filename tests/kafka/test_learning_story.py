"""The whole learning loop on real Kafka, with texts of its own: nothing lost, what is worse refused, rolled back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kafka.harness import ROOT

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_a_champion_learns_what_is_new_and_loses_nothing(runs_kafka: None, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.learning_story", "--json", "--window-s", "3", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["lost"], found["duplicates"]) == (0, 0)
    assert found["worse_candidate_refused"] and found["rollback_ok"]
    assert found["drift_alarm"] and found["hostile_blamed"]
    assert (found["verdict"], found["judged"]) == ("challenger", "promote")
    assert found["f1_new_after"] - found["f1_new_before"] >= 15
    assert found["f1_old_before"] - found["f1_old_after"] <= 0.5
