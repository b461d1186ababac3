"""`streamgauge evaluate`: grade a release on labelled text, for a table, for a program, or as a report."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from models import releases
from models.classifier import Classifier
from models.datasets import Columns, Example
from models.embeddings import distances
from models.errors import TRAIN_EXTRA, BadDataset, MissingExtra
from models.evaluation import Evaluation, Judged, is_stranger, judge, summary
from models.readers import read_examples
from models.robustness import Robustness
from models.robustness import robustness as robustness_of
from models.slices import Slice, by_entities, by_length, by_value, slices
from models.tasks import load_task
from streams.command_line import AsJson, DataFile, Device, LabelColumn, ReleaseRef, Runtime, TaskName, TextColumn
from streams.model_output import clear_errors, progress_bar

TRAIN = "What it was trained on: tells names seen from unseen ones, and compares distances for what is out of scope."
SOURCE = "source"  # a column of the data, if it has one
ONLY_WHEN_ASKED = {"coverage", "selective_accuracy"}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Graded:
    found: Evaluation
    judged: Judged
    slices: Sequence[Slice]
    robustness: Robustness | None


def evaluate(
    task: TaskName,
    data: DataFile,
    release: ReleaseRef = None,
    abstain: Annotated[bool, typer.Option("--abstain", help="Also: what is decided without a person.")] = False,
    robustness: Annotated[bool, typer.Option("--robustness", help="Also: what changed texts cost.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write DIR/report.html, with pictures.")
    ] = None,
    train: Annotated[Path | None, typer.Option(help=TRAIN)] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    seed: Annotated[int, typer.Option(help="Of --robustness: the same seed changes texts alike.")] = 7,
    device: Device = "auto",
    runtime: Runtime = "auto",
    as_json: AsJson = False,
) -> None:
    """Grade a release on labelled text: accuracy, F1, calibration, scope, robustness, speed."""
    with clear_errors():
        chosen = load_task(task)
        write = None if report is None else _writer(report)
        directory = releases.find_release(chosen.name, release)
        columns = Columns(text_column, label_column)
        examples, train_examples = read_examples(data, columns), read_examples(train, columns) if train else []
        with progress_bar() as progress:
            progress("load", 0, 1)
            classifier = Classifier.load(directory, chosen, device, runtime)
            progress("classify", 0, 1)
            judged = judge(classifier, examples)
            found = summary(classifier, judged, chosen.review_below if abstain else None)
            if found.out_of_scope is not None and train_examples:
                more = distances(directory, classifier, judged, train_examples, progress)
                found = found.model_copy(update={"out_of_scope": found.out_of_scope.with_methods(more)})
            drops = robustness_of(classifier, judged, seed, progress) if robustness else None
            facets = _facets(judged, train_examples, _sources(data, text_column, examples, judged))
            graded = _Graded(found, judged, slices(judged, facets), drops)
            written = write(graded, data.name, chosen.review_below) if write else None
    if as_json:
        print(json.dumps(_json(graded, abstain, written)))
    else:
        _show(graded, chosen.review_below if abstain else None, written)


def _writer(folder: Path) -> Callable[[_Graded, str, float], Path]:
    """Whether a report can be written is known before anything is graded."""
    try:
        from models.report import Contents, write_report
    except ImportError as error:
        raise MissingExtra(f"--report needs the train extra: {TRAIN_EXTRA} ({error})") from error

    def write(graded: _Graded, data_name: str, review_below: float) -> Path:
        contents = Contents(graded.found, graded.judged, graded.slices, graded.robustness, data_name, review_below)
        return write_report(contents, folder, datetime.now(UTC))

    return write


def _sources(data: Path, text_column: str, examples: Sequence[Example], judged: Judged) -> list[str]:
    """Where each judged example comes from; nothing where the data do not say it in a column `source`."""
    try:
        named = read_examples(data, Columns(text_column, SOURCE))
    except BadDataset:
        return []
    pairs = zip(named, examples, strict=True)
    return [source.label for source, example in pairs if not is_stranger(judged.labels, example)]


def _facets(judged: Judged, train: Sequence[Example], sources: Sequence[str]) -> Mapping[str, Sequence[str]]:
    texts = [example.text for example in judged.examples]
    facets = {"length": by_length(texts)}
    if sources:
        facets["source"] = by_value(sources)
    if train:
        facets["names"] = by_entities(texts, [example.text for example in train])
    return facets


def _json(graded: _Graded, abstain: bool, report: Path | None) -> dict[str, Any]:
    found = graded.found.model_dump(exclude=set() if abstain else ONLY_WHEN_ASKED)
    result = {name: value for name, value in found.items() if value is not None or name in ONLY_WHEN_ASKED}
    result["slices"] = [one.model_dump() for one in graded.slices]
    if graded.robustness is not None:
        result["robustness"] = graded.robustness.model_dump()
    if report is not None:
        result["report"] = str(report)
    return result


def _show(graded: _Graded, review_below: float | None, report: Path | None) -> None:
    found = graded.found
    console = Console()
    table = Table("label", "precision", "recall", "F1", "support", title=f"{found.release} on {found.n} examples")
    for label, score in found.per_label.items():
        table.add_row(label, f"{score.precision:.3f}", f"{score.recall:.3f}", f"{score.f1:.3f}", str(score.support))
    console.print(table)
    print(f"accuracy {found.accuracy:.3f}   macro-F1 {found.macro_f1:.3f}   ECE {found.ece:.3f}", end="")
    print(f" (before calibration {found.ece_uncalibrated:.3f}, by chance {found.ece_floor:.3f})", end="")
    print(f"   AURC {found.aurc:.4f}")
    if found.auc is not None and found.average_precision is not None:
        print(f"{found.positive_label}: AUC {found.auc:.3f}   average precision {found.average_precision:.3f}")
    speed = found.latency
    print(f"one text {speed.p50_ms:.1f} ms (p50), {speed.p99_ms:.1f} ms (p99); in batches {speed.per_event_ms:.2f} ms")
    if review_below is not None and found.coverage is not None:
        right = "none decided" if found.selective_accuracy is None else f"{found.selective_accuracy:.3f} of them right"
        print(f"decided without a person (score from {review_below} on): {found.coverage:.3f}, {right}")
    _show_scope(console, found)
    if graded.robustness is not None:
        _show_robustness(console, graded.robustness)
    if report is not None:
        print(report)


def _show_scope(console: Console, found: Evaluation) -> None:
    scope = found.out_of_scope
    if scope is None:
        return
    table = Table("method", "AUC", "found at 5% turned away", title=f"{scope.n_outside} texts out of scope")
    for name, one in scope.by_method.items():
        table.add_row(name, f"{one.auc:.3f}", f"{one.recall:.3f}")
    console.print(table)
    print(f"as served: {scope.recall:.3f} of them found, {scope.false_rejection:.3f} of the others turned away", end="")
    print(f", in-scope accuracy {scope.in_scope_accuracy:.3f}")


def _show_robustness(console: Console, found: Robustness) -> None:
    columns = ("change", "texts changed", "accuracy", "drop", "macro-F1", "drop", "other label")
    table = Table(*columns, title=f"robustness, seed {found.seed} (drops in points)")
    for one in found.drops:
        accuracy, f1 = f"{one.accuracy:.3f}", f"{one.macro_f1:.3f}"
        drops = [f"{100 * drop:.1f}" for drop in (one.accuracy_drop, one.macro_f1_drop)]
        table.add_row(one.name, str(one.changed), accuracy, drops[0], f1, drops[1], f"{one.label_changed:.3f}")
    console.print(table)
    print(f"worst drop {100 * found.worst_drop:.1f} points", end="")
    followed = found.contradictions_followed
    print("" if followed is None else f"; contradictions followed {followed:.3f}")
