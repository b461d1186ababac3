"""The commands `streamgauge dead-letters list|show|redrive`.

People read tables, in which nothing of a letter can reach the terminal unescaped; with `--json` the last line of
standard output is one JSON object. Exit codes: 0 done, 1 some were refused or failed (or there is no such letter),
2 used wrongly, 75 the broker is away.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from streams.command_line import AsJson, ConfigFile

if TYPE_CHECKING:
    from streams.dead_letters import Filters, Letter, Plan
    from streams.redriving import LetterTopic, Passed, Tally
    from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Look at what could not be processed, and send it back.")
err, out = Console(stderr=True), Console()

TopicOption = Annotated[str | None, typer.Option(help="Of the event's topic.")]
PartitionOption = Annotated[int | None, typer.Option(min=0, help="Of the event's partition.")]
StageOption = Annotated[Literal["intake", "scoring", "feedback"] | None, typer.Option(help="Where it failed.")]
ErrorOption = Annotated[str | None, typer.Option(help="With this in the error's class or message.")]
ShedOption = Annotated[bool, typer.Option("--shed", help="What a source's shed_after_s set aside, instead.")]
SinceOption = Annotated[str | None, typer.Option(help="Failed then or later: ISO 8601 or seconds since 1970.")]
UntilOption = Annotated[str | None, typer.Option(help="Failed before.")]


@app.command("list")
def list_letters(
    topic: TopicOption = None,
    partition: PartitionOption = None,
    stage: StageOption = None,
    error: ErrorOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 50,
    with_redriven: Annotated[bool, typer.Option("--with-redriven", help="Also those sent back already.")] = False,
    shed: ShedOption = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """List the newest dead letters, oldest first."""
    from streams.dead_letters import newest

    filters = _filters((), topic, partition, stage, error, since, until)
    letters, _ = _opened(config, shed)
    with _reading(letters, passes=2) as (passed, on_read):
        marks = letters.marks(on_read)
        found = newest(letters.letters(passed, on_read), filters, marks, limit, with_redriven)
    rows = [_row(one, hash(one.id) in marks) for one in found.letters]
    if as_json:
        seen = {"records": passed.records, "skipped": passed.skipped}
        print(json.dumps({"letters": rows, "matching": found.matching, "redriven": found.redriven} | seen))
        return
    table = Table("id", "failed at", "stage", "error", "message", "redrives")
    for one in found.letters:
        redrives = f"{one.said['redrives']}{', sent back' if hash(one.id) in marks else ''}"
        said = one.said
        cells = (one.id, said["failed_at"], said["stage"], said["error"], said["message"], redrives)
        table.add_row(*map(_cell, cells))
    out.print(table)
    out.print(f"{len(rows)} of {found.matching} letters; {found.redriven} were sent back already", highlight=False)


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The letter's id, as `list` shows it.")],
    shed: ShedOption = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show one dead letter, its bytes as text as far as they are text."""
    from streams.dead_letters import Filters

    letters, _ = _opened(config, shed)
    filters, copies, newest_copy = Filters(ids=frozenset([letter_id])), 0, None
    with _reading(letters, passes=2) as (passed, on_read):
        was_redriven = hash(letter_id) in letters.marks(on_read)
        for one in letters.letters(passed, on_read):
            if filters.match(one):
                newest_copy, copies = one, copies + 1
    if newest_copy is None:
        err.print(f"no dead letter {letter_id[:200]!r}: `streamgauge dead-letters list` shows their ids", markup=False)
        raise typer.Exit(1)
    if as_json:
        print(json.dumps({**newest_copy.said, "redriven": was_redriven, "copies": copies}))
    else:
        out.print(_shown(newest_copy, was_redriven, copies))


@app.command()
def redrive(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="These letters; all when left out.")
    ] = None,
    topic: TopicOption = None,
    partition: PartitionOption = None,
    stage: StageOption = None,
    error: ErrorOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 1000,
    rate_per_s: Annotated[float, typer.Option(min=0.01, max=100_000, help="Letters a second at most.")] = 50.0,
    max_redrives: Annotated[int, typer.Option(min=1, max=100, help="Refuse what was redriven so often.")] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    shed: ShedOption = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Send events back to where they came from: their original bytes, key and headers, and a count of redrives.

    A letter goes once: what was sent back is remembered in the dead-letter topic. What fails again is a new letter.
    """
    from streams.dead_letters import plan_of
    from streams.redriving import Redriver

    filters = _filters(ids or (), topic, partition, stage, error, since, until)
    letters, settings = _opened(config, shed)
    sources = {one.topic for one in settings.active_sources.values()}
    sources |= {settings.topics.observations, settings.topics.feedback}
    with _reading(letters, passes=2) as (passed, on_read):
        marks = letters.marks(on_read)
        plan = plan_of(letters.letters(passed, on_read), filters, marks, limit, max_redrives, sources)
    _explain(plan)
    if dry_run or not plan.letters:
        _report(plan, None, {"dry_run": dry_run, "interrupted": False}, as_json)
        raise typer.Exit(0 if dry_run or not plan.refused else 1)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody is there to be asked: add --yes, or --dry-run to look first")
        typer.confirm("Send them back?", abort=True, err=True)
    with _stop_on_signals() as stopped:
        redriver = Redriver(settings, letters.name, rate_per_s, stopped)
        try:
            try:
                _send(letters, plan, redriver.send)
            finally:
                redriver.finish()
        finally:
            _report(plan, redriver.tally, {"dry_run": False, "interrupted": stopped()}, as_json)
    went_all = redriver.tally.redriven == plan.letters and not redriver.tally.forgotten
    raise typer.Exit(0 if went_all and not plan.refused else 1)


def _send(letters: LetterTopic, plan: Plan, send: Callable[[Letter], bool]) -> None:
    from streams.redriving import Passed

    with _progress() as progress:
        bar = progress.add_task("sending back", total=plan.letters)
        for letter in letters.letters(Passed(), ranges=plan.ranges):
            if letter.lies.offset in plan.chosen[letter.lies.partition]:
                if not send(letter):
                    return
                progress.advance(bar)


def _opened(config: Path | None, shed: bool) -> tuple[LetterTopic, Settings]:
    from streams.redriving import LetterTopic
    from streams.settings import load_settings

    settings = load_settings(config)
    return LetterTopic(settings, shed), settings


@contextlib.contextmanager
def _reading(letters: LetterTopic, passes: int) -> Iterator[tuple[Passed, Callable[[], None]]]:
    """A bar while the topic is read so many times; afterwards a word on what is no letter."""
    from streams.redriving import Passed

    passed = Passed()
    with _progress() as progress:
        bar = progress.add_task(f"reading {letters.name}", total=passes * letters.records)
        yield passed, lambda: progress.advance(bar)
    if passed.skipped:
        what = f"{passed.skipped} records of {letters.name} are no dead letters, passed over"
        err.print(f"warning: {what}; the first: {passed.first_skipped}", markup=False, highlight=False, soft_wrap=True)


def _filters(
    ids: Any, topic: str | None, partition: int | None, stage: str | None, error: str | None, since: str | None,
    until: str | None,
) -> Filters:  # fmt: skip
    from streams.dead_letters import Filters

    moments = _moment(since, "--since"), _moment(until, "--until")
    return Filters(frozenset(ids), topic, partition, stage, error, *moments)


def _moment(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    try:
        if text.replace(".", "", 1).isdecimal():
            return float(text)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        what = "is no time; allowed: ISO 8601 (2026-11-22T20:00:00Z) or seconds since 1970"
        raise typer.BadParameter(f"{option} {text!r} {what}") from None


def _row(letter: Letter, was_redriven: bool) -> dict[str, Any]:
    """What `list --json` says of a letter: all but its bytes."""
    said = {name: value for name, value in letter.said.items() if not name.endswith("_base64")}
    return said | {"redriven": was_redriven}


def _cell(text: str) -> Text:
    from streams.dead_letters import printable

    return Text(printable(text), overflow="fold")


def _shown(letter: Letter, was_redriven: bool, copies: int) -> Table:
    from streams.dead_letters import printable, printable_bytes

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _row(letter, was_redriven).items():
        table.add_row(name, Text(printable(str(value), 1100)))
    table.add_row("copies", Text(str(copies)))
    for header, data in letter.headers[:50]:
        table.add_row("header", Text(f"{printable(header)} = {printable_bytes(data, 500)}"))
    if len(letter.headers) > 50:
        table.add_row("headers", Text(f"{len(letter.headers) - 50} more"))
    table.add_row("key", Text(printable_bytes(letter.key, 500)))
    table.add_row("value", Text(printable_bytes(letter.value)))
    return table


def _explain(plan: Plan) -> None:
    from streams.dead_letters import printable

    for letter_id, why in plan.examples:
        err.print(f"refused: {printable(letter_id)}: {why.words}", markup=False, highlight=False, soft_wrap=True)
    if (unnamed := plan.refused.total() - len(plan.examples)) > 0:
        err.print(f"refused: {unnamed} more ({dict(plan.refused)} in all)", markup=False, highlight=False)
    to = ", ".join(f"{count} to {name}" for name, count in plan.by_topic.items())
    words = [f"{plan.letters} letters to send back{': ' if to else ''}{to}"]
    words += [f"{plan.redriven} were sent back before"] if plan.redriven else []
    words += [f"{plan.beyond} are beyond --limit"] if plan.beyond else []
    err.print("; ".join(words), markup=False, highlight=False, soft_wrap=True)


def _report(plan: Plan, tally: Tally | None, flags: dict[str, bool], as_json: bool) -> None:
    """What went, was refused and failed; without a tally nothing was tried."""
    from streams.dead_letters import printable
    from streams.redriving import Tally

    done = tally or Tally()
    for letter_id, why in list(done.failed.items())[:20]:
        err.print(f"failed: {printable(letter_id)}: {printable(why)}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        counts = {"selected": plan.letters, "redriven": done.redriven, "refused": plan.refused.total()}
        counts |= {"failed": len(done.failed), "forgotten": done.forgotten}
        counts |= {"before": plan.redriven, "beyond": plan.beyond}
        print(json.dumps(counts | {"refused_by": dict(plan.refused)} | flags))
    elif tally is not None:
        left = plan.letters - done.redriven - len(done.failed)
        end = f"; {left} left for the next time" if left else ""
        out.print(
            f"{done.redriven} redriven, {plan.refused.total()} refused, {len(done.failed)} failed{end}", highlight=False
        )


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask to stop: what is under way is waited for, so that it is remembered."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=err, transient=True, disable=not err.is_terminal,
    )  # fmt: skip
