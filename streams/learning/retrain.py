"""One run of retraining: from what people said to a challenger, as a recipe.

    collect -> curate -> split -> train -> gate -> page -> register

Each step leaves a file in the run's folder (`models.learning.runs`), so a job that is killed anywhere goes on where it
was. A candidate lies in that folder, too: no worker serves it before somebody promotes it, and half of it never is one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from models.datasets import Example, data_hash
from models.durable import held
from models.errors import TRAIN_EXTRA, BadDataset, Busy, ExportMismatch, MissingExtra
from models.evaluation import is_stranger
from models.learning.approval import best_before, state_of
from models.learning.curating import curate
from models.learning.curation import Curated, Curation
from models.learning.gate import Exam, Opponents, gate
from models.learning.old_data import OldData
from models.learning.rehearsal import rehearsed
from models.learning.run_files import CurveFile, run_data, write_data
from models.learning.runs import Outcome, Plan, Run, begun, forget_candidates
from models.learning.splits import TimeSplit, split_by_time
from models.learning.store import DatasetStore
from models.learning.successor import settings_after, successor
from models.learning.verdict import VERDICT, Verdict, read_verdict, write_verdict
from models.registry import Registry
from models.releases import as_parent, home, read_manifest
from models.tasks import Task
from models.teachers import Progress
from models.tracking import configured
from streams.learning.collector import Collector
from streams.learning.promoting import challenge
from streams.settings import Settings

BY = "streamgauge retrain"  # who made it challenger, where people read that

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """What a run needs: the champion's directory, the task's folder below `home()/learning`, its old data."""

    settings: Settings
    task: Task
    champion: Path
    folder: Path
    old: OldData
    progress: Progress


def retrain(job: Job) -> Outcome:
    """Carry a run out to its end, on the newest version of the opinions; one that is over is not repeated.

    Raises Busy when another run of the task is at work, and whatever a user can put right, such as MissingExtra: the
    run then goes on when it is begun again.
    """
    with held(job.folder / ".retraining", f"a retraining of {job.task.name}"):
        plan = planned(job)
        if plan is None:
            return Outcome(end="nothing", reasons=("nobody has labelled a text yet",))
        run = begun(plan, job.folder / "runs")
        if run.outcome is not None and run.outcome.end != "waiting":
            return run.outcome
        try:
            outcome = carried_out(job, run)
        except (BadDataset, ExportMismatch) as error:  # the same again, however often it is begun
            outcome = Outcome(end="failed", reasons=(str(error),))
        forget_candidates(job.folder / "runs", but=run.folder)
        return run.ends(outcome)


def carried_out(job: Job, run: Run) -> Outcome:
    """The steps, one after the other; those that are done already give what they gave."""
    chosen, task = job.settings.retrain, job.task
    curation = run.once(Curation, "curation.json", lambda: curated(job, run.plan.version))
    parts = run.once(TimeSplit, "parts.json", lambda: split_by_time(curation.kept, progress=job.progress))
    if len(parts.train) < chosen.least_new or not parts.recent:
        return Outcome(end="nothing", reasons=(too_few(curation, parts, chosen.least_new),))
    settings = settings_after(job.champion, chosen.knobs)
    old = rehearsed(job.old.old, chosen.most_old, settings.seed)
    with CurveFile(run.folder) as curves:
        made = successor(task, job.champion, old, parts.train, settings, run.candidate, job.progress, curves)
    verdict = judged(job, run, parts.recent)
    of: dict[str, Sequence[Example | Curated]] = {
        "new texts": parts.train,
        "old texts among them": old,
        "later texts": parts.recent,
        "hold-out": job.old.hold_out,
    }
    write_data(run.folder, run_data(run.plan.version, of, curation))
    draw_page(run)
    state = state_of(run.folder)
    if state == "refused" or state == "rejected" or state == "waiting":
        return Outcome(end=state, reasons=tuple(verdict.refusals), release=made.release)
    ref = registered(task.name, run.candidate) or str(run.candidate)
    challenge(job.settings, task.name, ref, "shadow", chosen.shadow_share, BY)
    return Outcome(end="challenger", release=made.release)


def collect(settings: Settings, progress: Progress) -> None:
    """Take in the feedback that is there; where a collector runs anyway, what it has taken in is enough."""
    try:
        with Collector(settings, progress=progress) as collector:
            collector.collect()
    except Busy as error:
        log.info("%s; its newest version is learned from", error)


def planned(job: Job) -> Plan | None:
    """What a run on the newest version of the opinions follows from; None when there is no version."""
    store = DatasetStore(job.task.name, job.folder.parent)
    head = store.head()
    if head is None or not head.opinions:
        return None
    chosen = job.settings.retrain
    plan = Plan(
        task=job.task.name,
        champion=as_parent(job.champion),
        version=head.version,
        opinions_sha256=head.content_sha256,
        data_sha256=data_hash([*job.old.old, *job.old.hold_out]),
        knobs=chosen.model_dump(mode="json", include={"knobs", "least_new", "most_old", "curation", "gate"}),
    )
    store.keep(head.version, f"run {plan.id} is made of it")
    return plan


def curated(job: Job, version: int) -> Curation:
    """The texts of a version that may be learned from, and why the others may not."""
    try:
        from models.vectors import text_vectors
    except ImportError as error:
        raise MissingExtra(f"curation needs the train extra: {TRAIN_EXTRA} ({error})") from error
    base, chosen = read_manifest(job.champion).base.name, job.settings.retrain
    opinions = DatasetStore(job.task.name, job.folder.parent).opinions(version)
    old = rehearsed(job.old.old, chosen.most_old, settings_after(job.champion, chosen.knobs).seed)
    return curate(
        opinions,
        old,
        job.old.hold_out,
        lambda texts: text_vectors(texts, base, job.progress),
        chosen.curation,
        job.progress,
    )


def too_few(curation: Curation, parts: TimeSplit, least: int) -> str:
    """Why there is nothing to learn, for a person."""
    aside = sum(one.quarantined for one in curation.set_aside)
    return (
        f"{len(parts.train)} new texts to learn and {len(parts.recent)} later ones to be measured on; it takes"
        f" {least} (retrain.least_new) and 1. {len(curation.set_aside)} were set aside, {aside} of them for a person"
    )


def judged(job: Job, run: Run, recent: Sequence[Curated]) -> Verdict:
    """What the gate says of the candidate; said once."""
    if (run.folder / VERDICT).is_file():
        return read_verdict(run.folder)
    models = job.settings.models
    opponents = Opponents(job.task, job.champion, run.candidate, models.device, models.runtime)
    hold_out = sorted(job.old.hold_out, key=lambda one: is_stranger((), one))  # in the order that its hash is of
    exam = Exam(
        holdout=hold_out,
        recent=[Example(row.text, row.label) for row in recent],
        best_before=best_before(job.task.name, data_hash(hold_out)),
    )
    found = gate(opponents, exam, job.settings.retrain.gate, run.plan.id, datetime.now(UTC), job.progress)
    write_verdict(run.folder, *found)
    return found.verdict


def draw_page(run: Run) -> None:
    """The page of the run for a person, `report.html`."""
    from models.learning.page import write_page  # what draws is of the train extra

    write_page(run.folder, datetime.now(UTC))


def registered(task: str, directory: Path) -> str | None:
    """A release's lasting name in the model registry; None where no registry is in use.

    Workers then find it by its directory, which they must see. Raises MissingExtra, RegistryRefused and
    RegistryUnavailable.
    """
    if not (configured() or (home() / "registry").is_dir()):
        return None
    return next(str(one.reference) for one in Registry().register(directory) if one.task == task)
