"""`streamgauge retrain runs|show|approve|reject`: what the gate said of each run, and what a person says to it.

People read tables; with `--json` standard output carries one JSON value and nothing else. Exit codes: 0 done, 1 failed
(a file of the run is damaged), 2 used wrongly (no such run, refused by the gate, decided already).
"""

from __future__ import annotations

import getpass
import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from typer.core import TyperGroup

from models.learning.approval import decide, find_run, read_approval, runs_of, state_of
from models.learning.run_files import read_live
from models.learning.verdict import Verdict, read_verdict
from models.tasks import load_task
from streams.command_line import AsJson
from streams.learning.live_figures import page_made_anew
from streams.model_output import clear_errors

RUN = "run"  # the command that is meant when a task stands where a command would


class TaskOrCommand(TyperGroup):
    """A group whose command `run` need not be named: `retrain risk` is `retrain run risk`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What was given, with the command's name if that was left out."""
        if RUN in self.commands and args and args[0] not in {*self.commands, "--help"}:
            args = [RUN, *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


app = typer.Typer(cls=TaskOrCommand, no_args_is_help=True, help="Learn from feedback; look at runs and approve them.")
out = Console()

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id; `streamgauge retrain runs TASK` lists them.")]
TaskOption = Annotated[str | None, typer.Option("--task", help="Its task, where two have a run of this id.")]
By = Annotated[str | None, typer.Option(help="Who decides; default: you, on this machine.")]
Note = Annotated[str, typer.Option(help="Why; it stands on the run's page.")]


@app.command("runs")
def list_runs(task: Annotated[str, typer.Argument(metavar="TASK")], as_json: AsJson = False) -> None:
    """List a task's runs that have a verdict, oldest first."""
    with clear_errors():
        rows = [_row(folder) for folder in runs_of(load_task(task).name)]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(Column("run", no_wrap=True), "candidate", "graded", "state", "by", "why not")
    for row in rows:
        by, why = row["by"] or "", "; ".join(row["refusals"])
        cells = (row["run"], row["candidate"], row["graded_at"][:16].replace("T", " "), row["state"], by, why)
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)


@app.command()
def show(run: RunName, task: TaskOption = None, as_json: AsJson = False) -> None:
    """Show what the gate said of a run, check by check, and who decided."""
    with clear_errors():
        folder = find_run(run, task)
        verdict, row, live = read_verdict(folder), _row(folder), read_live(folder)
    if as_json:
        told = None if live is None else live.model_dump(mode="json", exclude={"looks"})
        print(json.dumps(row | {"verdict": verdict.model_dump(mode="json"), "live": told}))
        return
    table = Table("check", "passed", "why", title=Text(f"{verdict.candidate.release} after {verdict.champion.release}"))
    for check in verdict.checks:
        table.add_row(check.name, "yes" if check.passed else "no", Text(check.reason))
    out.print(table)
    if live is not None:
        out.print(Text(f"live: {live.action}; {live.reason}"))
    decided = f" by {row['by']}" if row["by"] else ""
    out.print(Text(f"{row['state']}{decided}{': ' + row['note'] if row['note'] else ''}"))


@app.command()
def approve(run: RunName, task: TaskOption = None, by: By = None, note: Note = "", as_json: AsJson = False) -> None:
    """Let a candidate that passed the gate follow the champion; the next `retrain` makes it the challenger."""
    _decide(run, task, True, by, note, as_json)


@app.command()
def reject(run: RunName, task: TaskOption = None, by: By = None, note: Note = "", as_json: AsJson = False) -> None:
    """Keep a candidate from following the champion, though the gate let it pass."""
    _decide(run, task, False, by, note, as_json)


def _decide(run: str, task: str | None, approved: bool, by: str | None, note: str, as_json: bool) -> None:
    with clear_errors():
        folder = find_run(run, task)
        decide(folder, approved, by or f"{getpass.getuser()}@{platform.node()}", datetime.now(UTC), note)
        row = _row(folder) | {"page": page_made_anew(folder)}
    if as_json:
        print(json.dumps(row))
    else:
        out.print(Text(f"{row['candidate']}: {row['state']} by {row['by']}"))


def _row(folder: Path) -> dict[str, Any]:
    verdict: Verdict = read_verdict(folder)
    approval = read_approval(folder)
    return {
        "run": verdict.run,
        "task": verdict.task,
        "candidate": verdict.candidate.release,
        "champion": verdict.champion.release,
        "graded_at": verdict.made_at.isoformat(),
        "state": state_of(folder),
        "by": approval.by if approval else None,
        "note": approval.note if approval else None,
        "refusals": verdict.refusals,
    }
