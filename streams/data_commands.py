"""The commands `streamgauge data check|report|convert`: labelled data before anything learns from them.

A source is a file (JSON lines, CSV, Parquet) or `hub:NAME[@REVISION][:CONFIG][#SPLIT]`. People read tables; with
`--json` standard output carries one JSON object and nothing else. Exit codes: 0 done, 1 `check` found errors, 2 used
wrongly.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.class_report import ClassReport, class_report
from models.data_checks import DataCheck, check_parts, read_part
from models.datasets import Columns, Example
from models.errors import BadDataset, ModelError
from models.near_duplicates import ALIKE
from models.readers import read_examples
from streams.command_line import AsJson
from streams.model_output import clear_errors, progress_bar

app = typer.Typer(no_args_is_help=True, help="Look at labelled data before anything learns from them.")

A_SOURCE = "A .jsonl, .csv, .tsv or .parquet file, or hub:NAME[@REVISION][:CONFIG][#SPLIT]."
Source = Annotated[str, typer.Argument(metavar="DATA", help=A_SOURCE)]
Sources = Annotated[
    list[str], typer.Argument(metavar="DATA...", help=f"What is learned from, then what is measured on. {A_SOURCE}")
]
TextColumn = Annotated[str, typer.Option(help="The field or column that holds the text.")]
LabelColumn = Annotated[str, typer.Option(help="The field or column that holds the label.")]
Out = Annotated[Path, typer.Option(help="A file of JSON lines; one that is there is not overwritten.")]


@app.command()
def check(
    sources: Sources,
    alike: Annotated[float, typer.Option(min=0.3, max=1, help="How similar near-duplicates are at least.")] = ALIKE,
    near: Annotated[bool, typer.Option("--near/--no-near", help="Look for near-duplicates.")] = True,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    as_json: AsJson = False,
) -> None:
    """Unusable rows, duplicates, contradicting labels, and leaks between the parts, exact and near."""
    with clear_errors(), progress_bar() as progress:
        parts = [read_part(source, Columns(text_column, label_column)) for source in sources]
        found = check_parts(parts, alike if near else None, progress)
    print(found.model_dump_json()) if as_json else _show_check(found)
    raise typer.Exit(1 if found.errors else 0)


@app.command()
def report(
    sources: Sources, text_column: TextColumn = "text", label_column: LabelColumn = "label", as_json: AsJson = False
) -> None:
    """Labels, how often each is there, and how long its texts are."""
    with clear_errors():
        found = class_report({name: read_examples(name, Columns(text_column, label_column)) for name in sources})
    print(found.model_dump_json()) if as_json else _show_report(found)


@app.command()
def convert(
    source: Source,
    out: Out,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    as_json: AsJson = False,
) -> None:
    """Write a source as JSON lines with `text` and `label`, which every command reads."""
    with clear_errors():
        _require_new(out)
        examples = read_examples(source, Columns(text_column, label_column))
        _write_examples(out, examples)
    _say({"examples": len(examples), "out": str(out)}, as_json)


def _require_new(out: Path) -> None:
    if out.exists():
        raise ModelError(f"--out {out}: is there already; choose a file that is not")


def _write_examples(out: Path, examples: Iterable[Example]) -> None:
    _write(out, (example._asdict() for example in examples))


def _write(out: Path, rows: Iterable[dict[str, Any]]) -> None:
    try:
        with out.open("x", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise BadDataset(f"--out {out}: cannot be written: {error.strerror}") from error


def _say(result: dict[str, Any], as_json: bool) -> None:
    print(json.dumps(result) if as_json else ", ".join(f"{name} {value}" for name, value in result.items()))


def _show_check(found: DataCheck) -> None:
    for name, rows in found.rows.items():
        print(f"{name}: {rows} examples")
    if not found.findings:
        print("nothing found")
    for one in found.findings:
        where = " and ".join(Path(part).name for part in one.parts)
        print(f"{one.level}: {one.kind}, {where}: {one.count} (what to do: {one.advice})")
        for row in one.examples:
            print(f"    {_printable(row)}")


def _show_report(found: ClassReport) -> None:
    names = list(found.examples)
    table = Table("label", *(Path(name).name for name in names), "median characters", "95%")
    for row in found.labels:
        cells = [f"{row.count[name]} ({row.share[name]:.1%})" for name in names]
        table.add_row(_cell(row.label), *cells, f"{row.median_chars:.0f}", f"{row.p95_chars:.0f}")
    Console().print(table)
    for name in names:
        print(f"{name}: {found.examples[name]} examples, commonest to rarest label {found.imbalance[name]:g} to 1")


def _printable(text: str) -> str:
    """What a terminal could take for a command, made harmless."""
    return "".join(char if char.isprintable() else " " for char in text)


def _cell(text: str) -> Text:
    """A cell of a table, with nothing in it taken for markup."""
    return Text(_printable(text))
