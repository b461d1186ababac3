"""`streamgauge compress`: a release in fewer bits, each with size, speed and loss; one of them kept as a release."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from models import releases
from models.datasets import Columns
from models.errors import TRAIN_EXTRA, MissingExtra, ModelError
from models.readers import read_examples
from models.tasks import load_task
from streams.command_line import AsJson, Device, LabelColumn, ReleaseRef, TaskName, TextColumn, task_files
from streams.model_output import clear_errors, progress_bar

LABELLED = "Labelled text, of any format, that the model did not learn from; each precision is graded on it."
ALSO = "Labelled text of one more task that the release serves; may be repeated."
CALIBRATE = "Texts to fix the ranges of int8-static on, best its training data; default: its golden texts."
KEEP = "Publish this one as a release; auto: the fastest in batches of those accepted."


def compress(
    task: TaskName,
    data: Annotated[Path, typer.Option(help=LABELLED)],
    release: ReleaseRef = None,
    also: Annotated[list[str] | None, typer.Option(metavar="TASK=FILE", help=ALSO)] = None,
    calibrate: Annotated[Path | None, typer.Option(help=CALIBRATE)] = None,
    keep: Annotated[Literal["auto", "fp16", "int8-dynamic", "int8-static"] | None, typer.Option(help=KEEP)] = None,
    out: Annotated[Path | None, typer.Option(help="With --keep: the directory to become the release.")] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a release in float32, float16 and int8: size, speed, what it loses; keep one that passes the gate."""
    kept: Path | None = None
    with clear_errors():
        if out is not None and keep is None:
            raise ModelError("--out: needs --keep: say which precision to publish there")
        try:
            from models import compression
        except ImportError as error:
            raise MissingExtra(f"compressing needs the train extra: {TRAIN_EXTRA} ({error})") from error
        files = {task: data} | task_files("--also", also)
        columns = Columns(text_column, label_column)
        tasks = [compression.Graded(load_task(name), read_examples(file, columns)) for name, file in files.items()]
        directory = releases.find_release(tasks[0].task.name, release)
        texts = [one.text for one in read_examples(calibrate, Columns(text_column, None))] if calibrate else []
        place = out.parent if out else releases.home() / "releases" / "-".join(one.task.name for one in tasks)
        with releases.workplace(place) as tmp_dir, progress_bar() as progress:
            found = compression.compress(directory, tasks, texts, tmp_dir, progress, device=device)
            if keep is not None:
                chosen = compression.best([one for one in found if keep in ("auto", one.precision)])
                kept = compression.keep(chosen, tmp_dir / chosen.precision, out)
    result = {
        "release": releases.read_manifest(directory).release,
        "variants": [one.model_dump() for one in found],
        "kept": None if kept is None else {"release": releases.read_manifest(kept).release, "directory": str(kept)},
    }
    print(json.dumps(result)) if as_json else _show(result)


def _show(result: dict[str, Any]) -> None:
    columns = ("precision", "MiB", "runs on", "one text", "p99", "in batches")
    title = f"{result['release']}: lost and other labels against float32 and the trained model"
    table = Table(*columns, "macro-F1", "lost", "other labels", "furthest score", "verdict", title=title)
    for one in result["variants"]:
        grades = one["grades"].values()
        table.add_row(
            one["precision"],
            f"{one['size_mib']:.1f}",
            one["runtime"],
            f"{one['p50_ms']:.1f} ms",
            f"{one['p99_ms']:.1f} ms",
            f"{one['per_event_ms']:.2f} ms",
            "\n".join(f"{grade['macro_f1']:.4f}" for grade in grades),
            "\n".join(f"{100 * grade['lost']:+.2f} points" for grade in grades),
            f"{one['different_labels']:.1%}",
            f"{one['furthest_score']:.3f}",
            f"refused: it {one['refused']}" if one["refused"] else "accepted",
        )
    Console().print(table)
    if result["kept"]:
        print(f"release {result['kept']['release']}")
        print(result["kept"]["directory"])
