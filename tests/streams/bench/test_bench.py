"""The whole benchmark on a few events: ours and one peer, without a model, on the embedded broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app


def test_ours_and_a_peer_give_every_prediction_once() -> None:
    command = ["bench", "--only", "stream", "--peer", "aiokafka", "--events", "300", "--rounds", "1", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("streamgauge", "aiokafka"):
        job = found["systems"][name]["stream"]
        assert job["failed"] is None
        assert (job["missing"], job["duplicates"]) == (0, 0)
        assert job["median"] > 0
        assert job["cpu_us_per_event"] >= 0  # so few events may take less than a tick of the clock
    assert found["stream_only_best_peer"] == "aiokafka"
    assert found["stream_only_ratio_to_best_peer"] > 0
    assert found["events_per_s"] is None
    assert found["left_out"]["faust"] == "not asked for"


@pytest.mark.slow
def test_with_a_model_there_are_a_ceiling_and_latencies(tiny_releases: dict[str, Path]) -> None:
    command = ["bench", "--only", "model", "--peer", "aiokafka", "--events", "2000", "--rounds", "2", "--json"]
    done = CliRunner().invoke(app, [*command, "--release", str(tiny_releases["intent"])])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("streamgauge", "aiokafka"):
        job = found["systems"][name]["model"]
        assert (job["failed"], job["missing"], job["duplicates"]) == (None, 0, 0)
        assert job["padding_ratio"] >= 1
        assert all(0 <= at["p50"] <= at["p99"] for at in job["latency_ms"].values())
        assert set(job["latency_ms"]) == {"30", "70", "95"}
    assert found["ceiling_events_per_s"] > 0
    assert found["ratio_to_ceiling"] > 0
    assert found["device"] == "cpu"


def test_a_bad_option_is_named() -> None:
    done = CliRunner().invoke(app, ["bench", "--peer", "spark"])
    assert done.exit_code == 2
    assert "no such peer" in done.output
