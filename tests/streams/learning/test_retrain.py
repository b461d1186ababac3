"""The job from labelled texts to a challenger, on a tiny model; cut off at many places, it comes to the same end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest

from models.learning.approval import decide
from models.learning.curation import Curation
from models.learning.old_data import OldData
from models.learning.runs import Outcome, Run, plans_of, read_outcome
from models.learning.splits import TimeSplit
from models.learning.verdict import read_verdict
from models.releases import as_parent, verify
from models.tasks import load_task
from models.teachers import Progress
from streams.learning.releases_topic import read_standing
from streams.learning.retrain import Job, retrain
from streams.settings import Settings
from tests.streams.learning.retraining import NEW, job_of, opinion, store
from tests.tiny_releases import LABELS


@pytest.fixture
def job(settings: Settings, tiny_release_of: Callable[[str], Path]) -> Job:
    """90 opinions on a task whose champion has never seen a third of what they say."""
    job = job_of(settings, tiny_release_of("intent"))
    store(job.folder.parent, [opinion(row) for row in range(90)])
    return job


def the_run(job: Job) -> Run:
    ((folder, plan),) = plans_of(job.folder / "runs").items()
    return Run(plan, folder.parent)


class CutOff(BaseException):
    """The process ends here: nothing catches it."""


def cut_at(call: int, seen: list[str]) -> Progress:
    def progress(what: str, done: int, total: int) -> None:
        seen.append(what)
        if len(seen) == call:
            raise CutOff

    return progress


@pytest.mark.slow
def test_labelled_texts_become_a_challenger_however_often_the_job_is_cut_off(job: Job) -> None:
    seen: list[str] = []
    outcome, cuts = None, 0
    while outcome is None:
        cuts += 1
        seen.clear()
        try:
            outcome = retrain(job._replace(progress=cut_at(6 * cuts, seen)))
        except CutOff:
            assert not read_standing(job.settings)  # nothing half is announced
            for directory in (job.folder / "runs").glob("*/candidate"):
                verify(directory)
    assert cuts > 4
    run = the_run(job)
    verdict = read_verdict(run.folder)
    assert outcome == Outcome(end="challenger", release=verdict.candidate.release), verdict.refusals
    assert [path.name for path in run.folder.iterdir() if path.name.startswith(".") or path.name == "unfinished"] == []

    manifest = verify(run.candidate)
    assert manifest.parent == as_parent(job.champion) == run.plan.champion
    assert set(manifest.head("intent").labels) == {*LABELS["intent"], NEW}
    assert verdict.recent is not None
    assert verdict.recent.accuracy_after > verdict.recent.accuracy_before

    challenger = read_standing(job.settings)[("intent", "challenger")]
    assert (challenger["release"], challenger["mode"]) == (manifest.release, "shadow")
    assert challenger["sha256"] == as_parent(run.candidate).sha256

    seen.clear()
    assert retrain(job._replace(progress=cut_at(1, seen))) == outcome  # it is over: nothing is done again
    assert seen == []


def test_what_is_measured_was_not_learned_and_every_opinion_has_its_end(job: Job) -> None:
    few = job.settings.retrain.model_copy(update={"least_new": 1000})
    outcome = retrain(job._replace(settings=job.settings.model_copy(update={"retrain": few})))
    assert outcome.end == "nothing"
    assert "it takes 1000 (retrain.least_new)" in outcome.reasons[0]
    run = the_run(job)
    assert not run.candidate.exists()

    def never() -> NoReturn:
        raise AssertionError("it was done before")

    curation = run.once(Curation, "curation.json", never)
    keys = [*(row.key for row in curation.kept), *(one.key for one in curation.set_aside)]
    assert sorted(keys) == sorted(opinion(row).key for row in range(90))
    parts = run.once(TimeSplit, "parts.json", never)
    assert len(parts.train) + len(parts.recent) + len(parts.leaks) == len(curation.kept)
    assert max(row.event_time_s for row in parts.train) < min(row.event_time_s for row in parts.recent)


def test_without_labels_there_is_nothing_to_do(job: Job) -> None:
    empty = job._replace(folder=job.folder.with_name("risk"), task=load_task("risk"))
    assert retrain(empty) == Outcome(end="nothing", reasons=("nobody has labelled a text yet",))
    assert not (empty.folder / "runs").exists()


def test_data_that_would_make_it_forget_a_label_end_the_run_with_the_reason(job: Job) -> None:
    gone = [example for example in job.old.old if example.label != "order_status"]
    only_new = [one for one in map(opinion, range(90)) if one.label != "order_status"]
    store(job.folder.parent, only_new)
    outcome = retrain(job._replace(old=OldData(gone, job.old.hold_out)))
    assert (outcome.end, outcome.release) == ("failed", None)
    assert "the champion knows order_status, of which there is no example to rehearse" in outcome.reasons[0]
    assert retrain(job._replace(old=OldData(gone, job.old.hold_out))) == outcome


@pytest.mark.slow
def test_where_a_person_must_approve_nothing_is_announced_before(job: Job) -> None:
    gate = job.settings.retrain.gate.model_copy(update={"approval": True})
    asking = job.settings.retrain.model_copy(update={"gate": gate})
    job = job._replace(settings=job.settings.model_copy(update={"retrain": asking}))
    for _ in range(2):
        assert retrain(job).end == "waiting"
        assert not read_standing(job.settings)
    run = the_run(job)
    decide(run.folder, True, "ann", datetime(2026, 3, 2, tzinfo=UTC))
    store(job.folder.parent, [opinion(row) for row in range(100)])  # what was labelled meanwhile comes after it
    assert retrain(job).end == "challenger"
    assert read_standing(job.settings)[("intent", "challenger")]["release"] == verify(run.candidate).release


ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_killed_at_ten_places_it_makes_one_challenger_and_never_half_a_release(job: Job, tmp_path: Path) -> None:
    broker, names = job.settings.broker, job.settings.topics
    env = os.environ | {
        "STREAMGAUGE_BROKER__BOOTSTRAP": broker.bootstrap,
        "STREAMGAUGE_TOPICS__RELEASES": names.releases,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "tests.streams.learning.retraining", str(job.champion)]

    def run(kill_at: int, home: Path) -> subprocess.CompletedProcess[str]:
        own = env | {"STREAMGAUGE_HOME": str(home)}
        return subprocess.run([*command, str(kill_at)], env=own, cwd=ROOT, capture_output=True, text=True, check=False)

    killed = 0
    for place in range(1, 11):
        done = run(6 * place, tmp_path)
        if done.returncode != -signal.SIGKILL:
            break
        killed += 1
        (folder,) = plans_of(job.folder / "runs")
        assert read_outcome(folder) is None
        assert not read_standing(job.settings)
        if (folder / "candidate").exists():
            verify(folder / "candidate")
    done = run(0, tmp_path)
    assert done.returncode == 0, done.stderr
    assert killed >= 3  # all ten, unless a slow machine saved the training meanwhile
    (folder,) = plans_of(job.folder / "runs")
    assert read_outcome(folder) == Outcome(end="challenger", release=verify(folder / "candidate").release)
    assert {key: one["release"] for key, one in read_standing(job.settings).items()} == {
        ("intent", "challenger"): verify(folder / "candidate").release
    }
