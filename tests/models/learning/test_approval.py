from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.errors import BadRun, Busy, IntegrityError
from models.learning.approval import (
    APPROVAL,
    FOLLOWS,
    best_before,
    decide,
    find_run,
    read_approval,
    runs_folder,
    runs_of,
    state_of,
)
from models.learning.verdict import write_verdict
from tests.models.learning.verdicts import made_verdict

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    return runs_folder("tone")


def test_what_passed_and_needs_nobody_follows_at_once(runs: Path) -> None:
    write_verdict(runs / "run-1", made_verdict(), None)
    assert state_of(runs / "run-1") == "passed"
    assert state_of(runs / "run-1") in FOLLOWS


def test_what_needs_a_person_waits_until_one_has_decided(runs: Path) -> None:
    for run, approved, state in (("run-1", True, "approved"), ("run-2", False, "rejected")):
        write_verdict(runs / run, made_verdict(run=run, approval=True), None)
        assert state_of(runs / run) == "waiting"
        found = decide(runs / run, approved, "ann", NOW, "looked at the lost texts")
        assert read_approval(runs / run) == found
        assert (found.by, found.at, found.candidate.release) == ("ann", NOW, "tone-2")
        assert state_of(runs / run) == state
        assert (state in FOLLOWS) is approved


def test_nobody_can_approve_what_the_gate_refused(runs: Path) -> None:
    write_verdict(runs / "run-1", made_verdict(passed=False), None)
    with pytest.raises(BadRun, match="the gate refused it"):
        decide(runs / "run-1", True, "ann", NOW)
    assert state_of(runs / "run-1") == "refused"


def test_the_first_decision_stands(runs: Path) -> None:
    write_verdict(runs / "run-1", made_verdict(approval=True), None)
    decide(runs / "run-1", False, "ann", NOW)
    with pytest.raises(BadRun, match="ann rejected it at 2026-03-01 12:00"):
        decide(runs / "run-1", True, "bob", NOW)
    assert state_of(runs / "run-1") == "rejected"


def test_of_many_at_once_one_decides(runs: Path) -> None:
    write_verdict(runs / "run-1", made_verdict(approval=True), None)
    start, done = threading.Barrier(8), list[str]()

    def one(name: str) -> None:
        start.wait()
        try:
            decide(runs / "run-1", True, name, NOW)
            done.append(name)
        except (BadRun, Busy):
            pass

    threads = [threading.Thread(target=one, args=(f"person {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    approval = read_approval(runs / "run-1")
    assert approval is not None
    assert done == [approval.by]


def test_an_approval_is_of_one_release_alone(runs: Path) -> None:
    write_verdict(runs / "run-1", made_verdict(approval=True), None)
    decide(runs / "run-1", True, "ann", NOW)
    write_verdict(runs / "run-1", made_verdict(approval=True, candidate="tone-3"), None)
    with pytest.raises(IntegrityError, match="is of the release tone-2 as it was"):
        state_of(runs / "run-1")
    (runs / "run-1" / APPROVAL).write_text("{}")
    with pytest.raises(IntegrityError, match="run: Field required"):
        state_of(runs / "run-1")


def test_runs_are_found_by_name(runs: Path) -> None:
    for task, run in (("tone", "run-1"), ("tone", "run-2"), ("risk", "run-2")):
        write_verdict(runs_folder(task) / run, made_verdict(run=run), None)
    (runs / "unfinished").mkdir()
    assert find_run("run-1") == runs / "run-1"
    assert find_run("run-2", "risk") == runs_folder("risk") / "run-2"
    assert [folder.name for folder in runs_of("tone")] == ["run-1", "run-2"]
    for run, message in (
        ("run-2", "for each of risk, tone; say which with --task"),
        ("unfinished", "there are: run-1, run-2"),
        ("../tone/runs/run-1", "is no run"),
        ("*", "is no run"),
    ):
        with pytest.raises(BadRun, match=message):
            find_run(run)


def test_the_best_champion_on_one_hold_out_is_remembered(runs: Path) -> None:
    for run, before, sha256 in (("run-1", 0.9, "a" * 64), ("run-2", 0.88, "a" * 64), ("run-3", 0.95, "b" * 64)):
        write_verdict(runs / run, made_verdict(run=run, macro_f1_before=before, holdout_sha256=sha256), None)
    assert best_before("tone", "a" * 64) == 0.9
    assert best_before("tone", "c" * 64) is None
    assert best_before("none", "a" * 64) is None
