"""The options that several commands share; see `streams.model_output` for how those of a model owner talk.

People read tables; with `--json` standard output carries one JSON object and nothing else, and progress goes to
standard error. Exit codes: 0 done, 1 failed, 2 used wrongly (an option, a file or a release that cannot be used).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from models.errors import ModelError
from models.runtimes import RUNTIMES

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task's name, or the path of a task file (.toml).")]
DataFile = Annotated[
    Path, typer.Option("--data", help="Labelled text: JSON lines, .csv, .tsv, .parquet, or hub:NAME[:CONFIG][#SPLIT].")
]
TextColumn = Annotated[str, typer.Option(help="The field or column that holds the text, in every file given.")]
LabelColumn = Annotated[str, typer.Option(help="The field or column that holds the label, in every file given.")]
ReleaseRef = Annotated[str | None, typer.Option("--release", help="A release id or directory; default: the newest.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run the model.")]
Runtime = Annotated[str, typer.Option(help=f"What runs the model: auto (the fastest here), {', '.join(RUNTIMES)}.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings file; ./streamgauge.toml when there is one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of tables.")]


def task_files(option: str, given: Sequence[str] | None) -> dict[str, Path]:
    """The file of each task of an option TASK=FILE that may be repeated. Raises ModelError for what is none."""
    files: dict[str, Path] = {}
    for one in given or ():
        task, equals, file = one.partition("=")
        if not (task and equals and file):
            raise ModelError(f"{option} {one}: expected TASK=FILE, such as risk=risk.jsonl")
        if task in files:
            raise ModelError(f"{option} {one}: task {task} is given twice")
        files[task] = Path(file)
    return files
