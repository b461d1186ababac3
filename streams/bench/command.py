"""The command `streamgauge bench`."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from models.releases import find_release
from streams.bench import report
from streams.bench.arena import Arena, arena
from streams.bench.contestants import CEILING, Contestant, choose
from streams.bench.driver import Driver, Plan, Score
from streams.bench.job import JobKind
from streams.bench.report import Result
from streams.bench.statistics import SPARE_SHARE
from streams.bench.texts import events as make_events
from streams.bench.texts import load_texts
from streams.command_line import AsJson

KINDS: tuple[JobKind, ...] = ("stream", "model")
_EVENTS: dict[JobKind, int] = {"stream": 200_000, "model": 6_000}
_SIZED = 200  # events whose mean size stands for all

err, out = Console(stderr=True), Console()


class _Shown:
    """A bar on standard error for the run that goes on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar: TaskID | None = None

    def started(self, what: str, total: int) -> None:
        """Show a new bar."""
        if self._bar is not None:
            self._progress.remove_task(self._bar)
        self._bar = self._progress.add_task(what, total=total)

    def counted(self, count: int) -> None:
        """Move it."""
        if self._bar is not None:
            self._progress.update(self._bar, completed=count)


def bench(
    peer: Annotated[list[str] | None, typer.Option(help="Only this peer; repeat for more. All that are there.")] = None,
    broker: Annotated[str, typer.Option(help="embedded, kafka (started here), or HOST:PORT.")] = "embedded",
    events: Annotated[int | None, typer.Option(min=20, help="Of a run: 200,000 without a model, 6,000 with.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each system and job, interleaved.")] = 5,
    texts: Annotated[list[Path] | None, typer.Option(help="JSON lines with `text`; the shipped samples.")] = None,
    task: Annotated[str, typer.Option(help="Of the job with a model.")] = "intent",
    release: Annotated[str | None, typer.Option(help="Release or directory; the task's newest.")] = None,
    skip_latency: Annotated[bool, typer.Option("--skip-latency", help="Rates only.")] = False,
    only: Annotated[Literal["stream", "model"] | None, typer.Option(help="One job; both when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure ours and its peers in one run, without a model (what the stream costs) and with one (the whole)."""
    kinds = [kind for kind in KINDS if only in (None, kind)]
    counts = {kind: events or _EVENTS[kind] for kind in kinds}
    try:
        chosen, left_out = choose(peer or [], administered=broker != "embedded")
        mixed = {kind: load_texts(texts or [], int(count * (1 + SPARE_SHARE))) for kind, count in counts.items()}
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    directory = str(find_release(task, release).resolve()) if "model" in kinds else ""
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err
    )
    with arena(broker) as where, bars:
        plans = [
            Plan(kind, _taking_part(kind, chosen), _fitting(where, kind, mixed[kind]), rounds, task, directory)
            for kind in kinds
        ]
        measured = _measure(Driver(where, _Shown(bars)), plans, not skip_latency)
        result = dataclasses.replace(measured, broker=where.name, left_out=left_out)
    _print(result, as_json)


def _taking_part(kind: JobKind, chosen: Sequence[Contestant]) -> list[Contestant]:
    return [*chosen, CEILING] if kind == "model" else list(chosen)


def _fitting(where: Arena, kind: JobKind, texts: Sequence[str]) -> Sequence[str]:
    """As many of the texts as the broker can hold, with a word when they are not all."""
    sizes = [len(event) for event in make_events(texts[:_SIZED])]
    most = where.most_events(kind, statistics.mean(sizes))
    if most is not None and most < len(texts):
        counted, asked = (int(count / (1 + SPARE_SHARE)) for count in (most, len(texts)))
        err.print(f"{kind}: {counted:,} events a run, not {asked:,}: more do not fit into the {where.name} broker")
    return texts[:most]


def _measure(driver: Driver, plans: Sequence[Plan], latency: bool) -> Result:
    scores: dict[JobKind, dict[str, Score]] = {"stream": {}, "model": {}}
    info: dict[str, Any] = {}
    for plan in plans:
        if plan.kind == "model":
            info = driver.probe(plan)
            plan = dataclasses.replace(plan, runtime=info["runtime"])
        scores[plan.kind] = driver.throughput(plan)
        if plan.kind == "model" and latency:
            driver.latency(plan, scores[plan.kind])
    return Result(
        contestants=plans[-1].contestants,  # the last plan has the most
        broker="",
        rounds=plans[0].rounds,
        events={plan.kind: int(len(plan.texts) / (1 + SPARE_SHARE)) for plan in plans},
        stream=scores["stream"],
        model=scores["model"],
        model_info=info,
    )


def _print(result: Result, as_json: bool) -> None:
    shown = err if as_json else out
    for table in report.tables(result):
        shown.print(table)
    summary = report.as_json(result)
    for name, why in summary["left_out"].items():
        shown.print(f"left out: {name}: {why}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps(summary))
