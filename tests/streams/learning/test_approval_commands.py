"""`streamgauge retrain runs|show|approve|reject`: what people see of runs, and what their word changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from models.learning.approval import read_approval, runs_folder, state_of
from models.learning.verdict import write_verdict
from models.report import FILE
from streams.learning.approval_commands import TaskOrCommand
from tests.models.learning.verdicts import made_verdict
from tests.streams.commands import Done, runner

Retrain = Callable[..., Done]


@pytest.fixture
def retrain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Retrain:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    for run, passed, approval in (("run-1", False, True), ("run-2", True, True), ("run-3", True, False)):
        write_verdict(runs_folder("tone") / run, made_verdict(run=run, passed=passed, approval=approval), None)
    command = runner(monkeypatch, capsys, tmp_path)
    return lambda *arguments: command("retrain", *arguments)


def test_runs_are_listed_with_their_state(retrain: Retrain) -> None:
    rows = json.loads(retrain("runs", "tone", "--json").out)
    assert [(row["run"], row["state"]) for row in rows] == [
        ("run-1", "refused"), ("run-2", "waiting"), ("run-3", "passed"),
    ]  # fmt: skip
    table = retrain("runs", "tone").out
    assert "waiting" in table
    assert "recent: of 32 texts 16 gained and 0 lost" in table


def test_a_run_is_shown_check_by_check(retrain: Retrain) -> None:
    shown = retrain("show", "run-1").out
    assert "tone-2 after tone-1" in shown
    assert "refused" in shown
    whole = json.loads(retrain("show", "run-1", "--json").out)
    assert [check["passed"] for check in whole["verdict"]["checks"]] == [True, False]


def test_a_person_approves_and_the_page_says_so(retrain: Retrain) -> None:
    done = retrain("approve", "run-2", "--by", "Ann", "--note", "fine", "--json")
    folder = runs_folder("tone") / "run-2"
    assert (done.code, json.loads(done.out)["state"], state_of(folder)) == (0, "approved", "approved")
    assert json.loads(done.out)["page"] == str(folder / FILE)
    assert "Passed the gate, approved" in (folder / FILE).read_text(encoding="utf-8")
    assert "approved by Ann: fine" in retrain("show", "run-2").out
    again = retrain("reject", "run-2")
    assert again.code == 2
    assert "Ann approved it" in again.err


def test_a_person_rejects_and_is_named(retrain: Retrain) -> None:
    assert "tone-2: rejected by " in retrain("reject", "run-2").out
    approval = read_approval(runs_folder("tone") / "run-2")
    assert approval is not None
    assert "@" in approval.by


def test_what_cannot_be_approved_is_said(retrain: Retrain) -> None:
    for run, message in (("run-1", "the gate refused it"), ("run-9", "there are: run-1, run-2, run-3")):
        done = retrain("approve", run)
        assert (done.code, done.out) == (2, "")
        assert message in done.err


def test_a_task_in_the_place_of_a_command_is_run() -> None:
    app, ran = typer.Typer(cls=TaskOrCommand), list[tuple[str, bool]]()

    @app.command("run")
    def run(task: str, once: Annotated[bool, typer.Option("--once")] = False) -> None:
        ran.append((task, once))

    @app.command("show")
    def show(name: str) -> None:
        ran.append((f"shown {name}", False))

    for arguments in (["risk"], ["risk", "--once"], ["--once", "risk"], ["run", "show"], ["show", "risk"]):
        assert CliRunner().invoke(app, arguments).exit_code == 0
    assert ran == [("risk", False), ("risk", True), ("risk", True), ("show", False), ("shown risk", False)]
    assert "show" in CliRunner().invoke(app, ["--help"]).output
