"""The commands `streamgauge data check|report|errors|augment|convert`: labelled data before anything learns from them.

A source is a file (JSON lines, CSV, Parquet) or `hub:NAME[@REVISION][:CONFIG][#SPLIT]`. People read tables; with
`--json` standard output carries one JSON object and nothing else. Exit codes: 0 done, 1 `check` found errors, 2 used
wrongly.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.class_report import ClassReport, class_report
from models.data_checks import DataCheck, check_parts, read_part
from models.datasets import Columns, Example, accepted, labels_of
from models.errors import TRAIN_EXTRA, BadDataset, MissingExtra, ModelError
from models.label_errors import FOLDS, Suspect
from models.near_duplicates import ALIKE
from models.readers import read_examples, scan
from streams.command_line import AsJson, LabelColumn, TextColumn
from streams.model_output import clear_errors, progress_bar

app = typer.Typer(no_args_is_help=True, help="Look at labelled data, and make more of them.")

A_SOURCE = "A .jsonl, .csv, .tsv or .parquet file, or hub:NAME[@REVISION][:CONFIG][#SPLIT]."
Source = Annotated[str, typer.Argument(metavar="DATA", help=A_SOURCE)]
Sources = Annotated[
    list[str], typer.Argument(metavar="DATA...", help=f"What is learned from, then what is measured on. {A_SOURCE}")
]
Out = Annotated[Path, typer.Option(help="A file of JSON lines; one that is there is not overwritten.")]
Seed = Annotated[int, typer.Option(help="Same seed and data: same result.")]
Chance = Annotated[float, typer.Option(min=0, max=1, help="Chance that a variant has this change.")]


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
def errors(
    source: Source,
    base: Annotated[str | None, typer.Option(help="Encoder to judge by; default: the packaged one.")] = None,
    folds: Annotated[int, typer.Option(min=2, max=50, help="Parts, each judged by what the others teach.")] = FOLDS,
    limit: Annotated[int, typer.Option(min=1, help="Rows shown; --out has all.")] = 20,
    out: Annotated[Path | None, typer.Option(help="All suspects as JSON lines, the surest first.")] = None,
    seed: Seed = 7,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    as_json: AsJson = False,
) -> None:
    """Labels that are probably wrong, by confident learning; a person decides."""
    with clear_errors():
        _require_new(out)
        found = list(scan(source, Columns(text_column, label_column)))
        examples = accepted(found, source)
        labels = labels_of(examples)
        suspects = _suspects(examples, labels, base, folds, seed)
        rows = [
            {
                "where": found[suspect.row].where,
                "text": examples[suspect.row].text,
                "label": labels[suspect.given],
                "suggested": labels[suspect.suggested],
                "margin": round(suspect.margin, 4),
            }
            for suspect in suspects
        ]
        if out is not None:
            _write(out, rows)
    if as_json:
        print(json.dumps({"n": len(examples), "suspects": len(rows), "rows": rows[:limit]}, ensure_ascii=False))
    else:
        _show_suspects(rows, len(examples), limit)


@app.command()
def augment(
    source: Source,
    out: Out,
    copies: Annotated[int, typer.Option(min=1, max=50, help="Variants of each example, at most.")] = 1,
    synonyms: Chance = 0.5,
    typos: Chance = 0.3,
    casing: Chance = 0.0,
    entities: Chance = 0.3,
    numbers: Chance = 0.3,
    only: Annotated[bool, typer.Option("--only", help="Write the variants without the examples.")] = False,
    seed: Seed = 7,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    as_json: AsJson = False,
) -> None:
    """Write the examples with variants of them: synonyms, typing errors, casing, other names, other amounts."""
    from models.augmentation import AugmentSettings
    from models.augmentation import augment as variants_of

    with clear_errors():
        _require_new(out)
        examples = read_examples(source, Columns(text_column, label_column))
        settings = AugmentSettings(
            copies=copies, synonyms=synonyms, typos=typos, casing=casing, entities=entities, numbers=numbers
        )
        variants = variants_of(examples, settings, random.Random(seed))  # noqa: S311 - repeatable, nothing secret
        _write_examples(out, [*([] if only else examples), *variants])
    _say({"examples": len(examples), "variants": len(variants), "out": str(out)}, as_json)


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


def _suspects(
    examples: list[Example], labels: tuple[str, ...], base: str | None, folds: int, seed: int
) -> list[Suspect]:
    try:
        from models.label_errors import label_errors, out_of_fold
        from models.tasks import PACKAGED_BASE
        from models.vectors import text_vectors
    except ImportError as error:
        raise MissingExtra(f"finding label errors needs the train extra: {TRAIN_EXTRA} ({error})") from error
    column_of = {label: column for column, label in enumerate(labels)}
    targets = np.array([column_of[example.label] for example in examples], np.int64)
    with progress_bar() as progress:
        vectors = text_vectors([example.text for example in examples], base or PACKAGED_BASE, progress)
        probabilities = out_of_fold(vectors, targets, folds, seed, progress)
    return label_errors(probabilities, targets)


def _require_new(out: Path | None) -> None:
    if out is not None and out.exists():
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


def _show_suspects(rows: list[dict[str, Any]], examples: int, limit: int) -> None:
    table = Table("where", "label", "suggested", "margin", "text")
    for row in rows[:limit]:
        cells = (_cell(str(row[name])) for name in ("label", "suggested"))
        table.add_row(Path(row["where"]).name, *cells, f"{row['margin']:.2f}", _cell(row["text"][:200]))
    Console().print(table)
    print(f"{len(rows)} of {examples} labels are probably wrong ({len(rows) / examples:.1%})")
    for (label, suggested), count in Counter((row["label"], row["suggested"]) for row in rows).most_common(5):
        print(f"  {count} times {label!r} for {suggested!r}")


def _printable(text: str) -> str:
    """What a terminal could take for a command, made harmless."""
    return "".join(char if char.isprintable() else " " for char in text)


def _cell(text: str) -> Text:
    """A cell of a table, with nothing in it taken for markup."""
    return Text(_printable(text))
