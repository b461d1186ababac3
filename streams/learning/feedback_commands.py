"""The commands `streamgauge feedback collect|status`: people's labels into versions of the data set.

With `--json` standard output carries one JSON object last. Exit codes: 0 done, 2 used wrongly or not allowed, 75 the
broker is away. A collector may be ended at any moment, by any signal: the next one goes on from what is durable.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from streams.command_line import AsJson, ConfigFile

if TYPE_CHECKING:
    from models.learning.store import VersionManifest
    from streams.learning.checkpoint import Checkpoint
    from streams.learning.collector import Collected
    from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Take people's labels in, and see what was taken in.")
err, out = Console(stderr=True), Console()


@app.command()
def collect(
    once: Annotated[bool, typer.Option("--once", help="Take in what is there now, and end.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Join feedback to the events it is about, and add it to the data sets of the tasks.

    Without --once it goes on, every feedback.collect_every_s, until it is told to stop.
    """
    from streams.learning.collector import Collector
    from streams.settings import load_settings

    settings = load_settings(config)
    with _until_told_to_stop() as stop, _bars() as progress, Collector(settings, progress=progress) as collector:
        while True:
            done = collector.collect()
            if once or done.versions or done.refused:
                _say(done, as_json)
            if once or stop.wait(settings.feedback.collect_every_s):
                return


@app.command()
def status(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="One task; all when left out.")] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Say what was taken in: the newest version of each data set, what became of the feedback, and what is behind."""
    from models.learning.store import DatasetStore
    from models.releases import home
    from streams.learning.checkpoint import load_checkpoint
    from streams.settings import load_settings

    settings = load_settings(config)
    heads = {name: DatasetStore(name).head() for name in ([task] if task else settings.tasks)}
    checkpoint = load_checkpoint(home() / "learning")
    lag = _lag(settings, checkpoint)
    if as_json:
        tasks = {name: json.loads(head.model_dump_json()) if head else None for name, head in heads.items()}
        refused = checkpoint.refused if checkpoint else {}
        print(json.dumps({"tasks": tasks, "not_understood": refused, "lag": lag}))
        return
    for name, head in heads.items():
        out.print(_shown(name, head))
    behind = "not known: the broker does not answer" if lag is None else f"{lag} records"
    out.print(f"feedback that was not collected yet: {behind}", highlight=False)
    if checkpoint and checkpoint.refused:
        out.print(f"not understood, now dead letters: {_counts(checkpoint.refused)}", markup=False, highlight=False)


def _lag(settings: Settings, checkpoint: Checkpoint | None) -> int | None:
    """Records of the topic that were not taken in yet; None when the broker does not say."""
    from streams.exits import BrokerUnavailable
    from streams.reading import TopicReader

    name = settings.topics.feedback
    try:
        reader = TopicReader(settings, name, f"{settings.broker.group}-feedback")
        its_id = reader.id
    except BrokerUnavailable as error:
        err.print(str(error), style="yellow", markup=False, highlight=False, soft_wrap=True)
        return None
    starts = {part: checkpoint.read.start(name, its_id, part) if checkpoint else 0 for part in reader.ranges}
    return sum(max(0, high - max(low, starts[part])) for part, (low, high) in reader.ranges.items())


def _shown(task: str, head: VersionManifest | None) -> Table:
    from streams.dead_letters import printable

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    if head is None:
        table.add_row(task, "no feedback yet")
        return table
    table.add_row(task, f"version {head.version} of {head.created_at:%Y-%m-%d %H:%M:%S %Z}")
    table.add_row("opinions", f"{head.opinions} of {head.annotators} annotators; {head.disputed} texts disputed")
    table.add_row("labels", Text(printable(_counts(head.labels), 1000)))
    table.add_row("records", Text(_counts(head.ends)))
    table.add_row("waiting", f"{head.waiting} for an event that is not known yet")
    return table


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _say(done: Collected, as_json: bool) -> None:
    ends = {task: dict(found) for task, found in done.ends.items() if found}
    if as_json:
        print(json.dumps({
            "records": done.records, "lost": done.lost, "ends": ends, "not_understood": dict(done.refused),
            "versions": done.versions, "waiting": done.waiting,
        }), flush=True)  # fmt: skip
        return
    words = [f"{done.records} records"] + [f"{task}: {_counts(found)}" for task, found in ends.items()]
    words += [f"not understood: {_counts(done.refused)}"] if done.refused else []
    words += [f"lost to retention: {done.lost}"] if done.lost else []
    words += [f"{done.waiting} are waiting for their event"] if done.waiting else []
    out.print("; ".join(words), markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _until_told_to_stop() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM end the waiting for more; what is under way is finished."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _bars() -> Iterator[Any]:
    """A bar for each topic that is read."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        bars = dict[str, TaskID]()

        def show(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(f"reading {what}", total=total)
            progress.update(bars[what], completed=done, total=total)

        yield show
