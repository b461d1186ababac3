from __future__ import annotations

from pathlib import Path

import pytest

from streams.bench.job import Job, Tally
from streams.bench.systems.ours import configuration
from streams.settings import load_settings


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(
        kind="stream",
        directory=str(tmp_path),
        bootstrap="127.0.0.1:9",
        input_topic="run-in",
        output_topic="run-out",
        group="run",
        partitions=4,
        task="intent",
        release="",
        runtime="auto",
        batch_events=64,
        batch_wait_ms=20.0,
        metrics_port=0,
    )


def test_a_job_is_read_as_it_was_written(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["program", str(job.write())])
    assert Job.from_command_line() == job


def test_a_program_says_how_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit, match="usage"):
        Job.from_command_line()


def test_what_one_process_counts_another_reads(tmp_path: Path) -> None:
    reader = Tally(str(tmp_path))
    assert reader.count() == 0
    assert reader.padding_ratio is None
    writer = Tally(str(tmp_path))
    writer.add(3, 40, 50)
    writer.add(2, 60, 60)
    assert reader.count() == 5
    assert reader.padding_ratio == 1.1


def test_ours_runs_with_shipped_settings_but_for_names_and_one_source(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "streamgauge.toml"
    path.write_text(configuration(job, tmp_path / "policy.toml"))
    settings, shipped = load_settings(path, env={}), load_settings(env={})
    assert settings.topics.predictions == "run-out"
    assert [source.topic for source in settings.active_sources.values()] == ["run-in"]
    assert settings.tasks == ("intent",)
    assert settings.broker.group == "run"
    assert (settings.batching, settings.intake, settings.worker) == (shipped.batching, shipped.intake, shipped.worker)
