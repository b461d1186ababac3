"""The command `train`: labelled text becomes a release."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from models import releases
from models.bases import TEACHER_BASE, is_fetched
from models.curves import Curves, TensorBoardCurves, Together
from models.datasets import Checked, Columns, check
from models.distillation import BASE, MOST_UNLABELLED, taught, unlabelled_for
from models.errors import TRAIN_EXTRA, MissingExtra, ModelError
from models.lessons import Lesson
from models.mlflow_curves import mlflow_curves
from models.readers import read_examples
from models.recipes import RECIPES, Chosen, choose, settings_for
from models.tasks import load_task
from models.tracking import configured
from models.train_settings import Method, TrainSettings
from streams.command_line import (
    AsJson,
    DataFile,
    LabelColumn,
    TaskName,
    TextColumn,
    task_files,
)
from streams.model_output import clear_errors, progress_bar

KNOB = "Any knob of training, such as learning_rate=1e-4 or layer_decay=0.8; may be repeated."
LOOK_AT_TEXTS = 2000  # to choose a recipe by their length
TEACHER = "A release to learn its tasks from too, or base:NAME[@SEED] to train one first. May be repeated: an ensemble."
UNLABELLED = "Texts that only the teachers speak of: JSON lines, CSV or Parquet. May be repeated."
MOST = "Unlabelled texts at most; of more a random part is taken."
NO_TEACHER = (
    f"a larger encoder could teach this data, for a point or two: streamgauge bases fetch {TEACHER_BASE}, then the"
    " same command again; going on without one"
)
ALSO = "One more task for the same encoder to learn, with its data; may be repeated."


def train(
    task: TaskName,
    data: DataFile,
    dev: Annotated[Path | None, typer.Option(help="Development data; default: a tenth of --data, held out.")] = None,
    also: Annotated[list[str] | None, typer.Option(metavar="TASK=FILE", help=ALSO)] = None,
    also_dev: Annotated[list[str] | None, typer.Option(metavar="TASK=FILE", help="Their development data.")] = None,
    recipe: Annotated[str | None, typer.Option(help=f"{', '.join(RECIPES)}; default: chosen by the data.")] = None,
    method: Annotated[Method | None, typer.Option(help="Which weights learn; default: the recipe's.")] = None,
    base: Annotated[str | None, typer.Option(help="Base encoder: a directory or a hub name.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, max=1000, help="Default: the recipe's.")] = None,
    teacher: Annotated[list[str] | None, typer.Option(help=TEACHER)] = None,
    unlabelled: Annotated[list[Path] | None, typer.Option(help=UNLABELLED)] = None,
    most_unlabelled: Annotated[int, typer.Option(min=1, max=5_000_000, help=MOST)] = MOST_UNLABELLED,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    knob: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help=KNOB)] = None,
    seed: Annotated[int, typer.Option(help="Same seed, data and machine: same model.")] = 7,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Train with so many, publish the best on --dev.")] = 1,
    curves: Annotated[Path | None, typer.Option(help="Directory for TensorBoard event files.")] = None,
    parent: Annotated[
        str | None, typer.Option(help="The release it is to replace, on record; default: knob start.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to become the release; default: with the others.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune on labelled text, calibrate, export, compare with the source, and publish a release.

    A run that was cut off goes on where it was when the same command is given again.
    """
    started = time.perf_counter()
    with clear_errors():
        if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ModelError(f"--out {out}: is there already; choose a directory that is not")
        lessons = _lessons(task, data, dev, also, also_dev, Columns(text_column, label_column))
        try:
            from models.export import make_release
            from models.seeds import train_seeds
        except ImportError as error:
            raise MissingExtra(f"training needs the train extra: {TRAIN_EXTRA} ({error})") from error
        first = lessons[0]
        set_by_hand = {"method": method, "base": base, "epochs": epochs, **_knobs(knob), "seed": seed}
        given = {name: value for name, value in set_by_hand.items() if value is not None}
        more = unlabelled_for(lessons, unlabelled or (), most_unlabelled, seed, text_column)
        settings, chosen = settings_for(first.task, recipe, given, lambda: _looked(first, more, given, teacher))
        print(f"recipe {chosen.recipe}: {chosen.why}", file=sys.stderr)
        own = RECIPES[chosen.recipe].teacher
        teachers = teacher or ([f"{BASE}{own}@{TrainSettings().seed}"] if own else [])  # one for all seeds of a student
        if unlabelled and not teachers:
            raise ModelError(
                f"--unlabelled {unlabelled[0]}: nobody speaks of its texts without a --teacher; one that teaches by"
                f" itself comes with: streamgauge bases fetch {TEACHER_BASE}"
            )
        before = parent or settings.start
        replaced = releases.as_parent(releases.find_release(first.task.name, before)) if before else None
        with ExitStack() as opened, progress_bar() as progress:
            if teachers:
                lessons = taught(lessons, teachers, more, seed, progress)
            params = {"task": first.task.name, "recipe": chosen.recipe, **settings.model_dump()}
            drawn = _curves(opened, curves, f"train {first.task.name}", params)
            checkpoint = train_seeds(lessons, settings, seeds, progress, drawn, releases.home() / "unfinished")
            training = {"why": chosen.why, "knobs": settings.model_dump(exclude_defaults=True)}
            checkpoint = replace(checkpoint, notes={**checkpoint.notes, "training": training})
            directory = make_release(checkpoint, chosen.recipe, out, progress, replaced)
        manifest = releases.read_manifest(directory)
    result = _result(manifest, directory, round(time.perf_counter() - started, 1))
    print(json.dumps(result)) if as_json else _show_release(result)


def _lessons(
    task: str,
    data: Path,
    dev: Path | None,
    also: Sequence[str] | None,
    also_dev: Sequence[str] | None,
    columns: Columns,
) -> list[Lesson]:
    """What is to be learned, that of `task` first."""
    others, dev_files = task_files("--also", also), task_files("--also-dev", also_dev)
    if unknown := set(dev_files) - set(others):
        raise ModelError(f"--also-dev {min(unknown)}=...: needs --also {min(unknown)}=FILE")
    more = (_lesson(name, file, dev_files.get(name), columns) for name, file in others.items())
    return [_lesson(task, data, dev, columns), *more]


def _lesson(task: str, data: Path, dev: Path | None, columns: Columns) -> Lesson:
    chosen = load_task(task)
    checked = check(read_examples(data, columns))
    _report(checked, data)
    return Lesson(chosen, checked.examples, data.name, read_examples(dev, columns) if dev else None)


def _looked(
    lesson: Lesson, unlabelled: Sequence[str], given: Mapping[str, Any], teachers: Sequence[str] | None
) -> Chosen:
    """The recipe that the lesson's data ask for; one that needs a larger encoder only if there is one to teach."""
    from models.training import token_lengths

    texts = [*(example.text for example in lesson.examples), *unlabelled]
    lengths = token_lengths(given.get("base") or lesson.task.base, texts[:: 1 + len(texts) // LOOK_AT_TEXTS])
    labels = [example.label for example in lesson.examples]
    max_tokens = lesson.task.max_tokens
    wanted = bool(teachers) or not given.keys() & {"base", "start"}
    found = choose([*labels, *[""] * len(unlabelled)], lengths, max_tokens, wanted)
    if found.recipe == "taught" and not teachers and not is_fetched(TEACHER_BASE):
        print(NO_TEACHER, file=sys.stderr)
        return choose(labels, lengths, max_tokens)
    return found


def _result(manifest: releases.Manifest, directory: Path, seconds: float) -> dict[str, Any]:
    """What `train --json` prints: the release and its first task; the others, if any, under `also`."""
    first, *others = (
        {
            "task": head.task,
            "labels": list(head.labels),
            "rows": head.data.rows,
            "metrics": manifest.metrics | head.metrics,
        }
        for head in manifest.heads
    )
    release = {"release": manifest.release, "directory": str(directory), "recipe": manifest.recipe, "seconds": seconds}
    return first | release | ({"also": others} if others else {})


def _curves(opened: ExitStack, folder: Path | None, run_name: str, params: Mapping[str, Any]) -> Together:
    """To TensorBoard files if a folder was named, and to MLflow if somebody said where it is."""
    drawn = list[Curves]()
    if folder is not None:
        drawn.append(opened.enter_context(TensorBoardCurves(folder)))
    if configured():
        drawn.append(opened.enter_context(mlflow_curves(run_name, params)))
    return Together(*drawn)


def _knobs(given: Sequence[str] | None) -> dict[str, str]:
    """Knobs by name; their values are read by the settings, each by its own type."""
    knobs = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            raise ModelError(f"--knob {one}: expected NAME=VALUE, such as learning_rate=1e-4")
        knobs[name] = value
    return knobs


def _report(checked: Checked, data: Path) -> None:
    if checked.duplicates:
        print(f"{data}: {checked.duplicates} repeated texts left out", file=sys.stderr)
    if checked.contradictions:
        count, first = len(checked.contradictions), checked.contradictions[0]
        print(f"{data}: {count} lines left out whose text carries two labels, such as {first!r:.80}", file=sys.stderr)


def _show_release(result: dict[str, Any]) -> None:
    table = Table("task", "labels", "examples", "dev accuracy", "dev macro-F1", "dev ECE")
    for head in (result, *result.get("also", ())):
        figures = [f"{head['metrics']['dev'][name]:.3f}" for name in ("accuracy", "macro_f1", "ece")]
        table.add_row(head["task"], str(len(head["labels"])), str(head["rows"]), *figures)
    Console().print(table)
    print(f"release {result['release']}, {result['seconds']} seconds")
    print(result["directory"])
