"""`streamgauge retrain`: a champion's successors, made from feedback, once or whenever there is enough of it."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from models.errors import ModelError
from models.learning.old_data import old_data
from models.learning.runs import End, Outcome, is_open, last_version, plans_of
from models.learning.store import DatasetStore
from models.releases import find_release, home, read_manifest
from models.tasks import Task, load_task
from models.teachers import Progress
from streams.command_line import ConfigFile
from streams.learning.alarm_call import answer, ask_for_labels, call
from streams.learning.limits import is_out_of_memory, take_little
from streams.learning.releases_topic import read_standing
from streams.learning.retrain import Job, collect, retrain
from streams.learning.rollout import located
from streams.model_output import clear_errors, progress_bar
from streams.settings import Settings, load_settings

DATA = "What the champion was trained on: kept, so once is enough. A starter model needs none."
HOLD_OUT = "What every candidate is measured on and none learns from; default: a tenth of --data. Kept as well."
ENDS: dict[End, str] = {
    "challenger": "a challenger, scored beside the champion from now on",
    "waiting": "passed the gate and waits for a person",
    "rejected": "rejected by a person",
    "refused": "refused by the gate",
    "nothing": "nothing to learn yet",
    "failed": "no candidate",
}


NOTHING_NEW = Outcome(end="nothing", reasons=("no text was labelled since the last run",))

log = logging.getLogger("streams.learning.retrain")


def retrain_command(
    task: Annotated[str, typer.Argument(metavar="TASK")],
    once: Annotated[bool, typer.Option("--once", help="One run, and end.")] = False,
    data: Annotated[Path | None, typer.Option(help=DATA)] = None,
    hold_out: Annotated[Path | None, typer.Option(help=HOLD_OUT)] = None,
    champion: Annotated[str | None, typer.Option(help="Instead of the release that serves.")] = None,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each run.")] = False,
) -> None:
    """Learn from feedback: collect, curate, train the champion's successor, let the gate judge it, make it challenger.

    Without --once it goes on: a run whenever enough was labelled (retrain.least_new), or an alarm over drift wants it.
    A run that was cut off goes on where it was when the command is given again. It steps back for a worker on the same
    machine ([retrain] nice, cores, max_memory_mib).
    """
    settings, looking = load_settings(config), threading.Event()
    chosen = settings.retrain
    with clear_errors():
        its = load_task(str(settings.models.tasks.get(task, task)))
        take_little(chosen.nice, chosen.cores, chosen.max_memory_mib)
        os.environ["OMP_NUM_THREADS"] = str(chosen.cores)  # before the training half is imported
        while True:
            with progress_bar() as progress:
                outcome = turn(settings, its, champion, data, hold_out, progress, once)
            if outcome is not None:
                say(outcome, as_json)
            if once:
                raise typer.Exit(1 if outcome is not None and outcome.end == "failed" else 0)
            data = hold_out = None  # kept
            looking.wait(chosen.every_s)


def turn(
    settings: Settings,
    task: Task,
    champion: str | None,
    data: Path | None,
    hold_out: Path | None,
    progress: Progress,
    whatever: bool,
) -> Outcome | None:
    """One run, if it is time: an alarm over drift wants it, `retrain.least_new` texts were labelled since the last one,
    that was cut off, or `whatever` there is. None when it is not.

    An alarm that is answered by too little to learn from wants labels from then on.
    """
    folder = home() / "learning" / task.name
    directory = champion_of(settings, task.name, champion)
    old = old_data(read_manifest(directory), task.name, folder, data, hold_out)
    collect(settings, progress)
    new, is_cut_off = labelled_since(folder, task.name), any(map(is_open, plans_of(folder / "runs")))
    alarm = None if whatever else call(settings, task.name, folder, time.time())
    if not (whatever or alarm or is_cut_off or new >= settings.retrain.least_new):
        return None
    if alarm is not None:
        log.info("%s: the alarm %s wants a successor", task.name, alarm["id"])
    job = Job(settings, task, directory, folder, old, progress)
    outcome = carried_through(job) if whatever or new or is_cut_off else NOTHING_NEW
    if alarm is not None:
        answer(folder, alarm, time.time())
        if outcome.end == "nothing":
            ask_for_labels(settings, alarm, "; ".join(outcome.reasons), time.time())
            outcome = outcome.model_copy(update={"reasons": (*outcome.reasons, f"{alarm['id']} now asks for labels")})
    return outcome


def carried_through(job: Job) -> Outcome:
    """The run, with words for a person when memory does not suffice."""
    try:
        return retrain(job)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        limit = job.settings.retrain.max_memory_mib
        raise ModelError(
            f"retraining {job.task.name} needs more than retrain.max_memory_mib = {limit}: raise it, or lower"
            " retrain.most_old or knobs.batch_texts; the run goes on where it was"
        ) from error


def labelled_since(folder: Path, task: str) -> int:
    """How many more opinions there are than the last run that came to its end was made of."""
    store = DatasetStore(task, folder.parent)
    head, last = store.head(), last_version(folder / "runs")
    if head is None:
        return 0
    return head.opinions - (store.manifest(last).opinions if last is not None else 0)


def champion_of(settings: Settings, task: str, ref: str | None) -> Path:
    """The release to follow: the one named, else the one promoted, else that of the settings, else the newest."""
    if ref is not None:
        return find_release(task, ref)
    promoted = read_standing(settings).get((task, "champion"))
    if promoted is not None:
        return located(promoted, task)
    return find_release(task, settings.models.releases.get(task))


def say(outcome: Outcome, as_json: bool) -> None:
    """How a run ended, on standard output."""
    if as_json:
        print(json.dumps(outcome.model_dump()), flush=True)
        return
    print(f"{ENDS[outcome.end]}{f': {outcome.release}' if outcome.release else ''}", flush=True)
    for reason in outcome.reasons:
        print(f"  {reason}", flush=True)
