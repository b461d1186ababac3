"""`streamgauge releases promote|rollback|judge|watch|status`: which release serves; one record changes all workers."""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from streams.command_line import AsJson, ConfigFile
from streams.model_output import clear_errors
from streams.settings import Settings, load_settings

if TYPE_CHECKING:
    from streams.events import Release
    from streams.learning.judge import Judged

log = logging.getLogger("streams.learning.guard")
err, out = Console(stderr=True), Console()

Task = Annotated[str, typer.Argument(metavar="TASK")]
By = Annotated[str | None, typer.Option(help="Who does it; default: you, on this machine.")]


def promote(
    task: Task,
    ref: Annotated[
        str | None,
        typer.Argument(metavar="[REF]", help="models:/TASK@ALIAS, an id or a directory; default: the challenger."),
    ] = None,
    shadow: Annotated[
        float | None, typer.Option(min=0.001, max=1, help="Only beside the champion, for this share of the keys.")
    ] = None,
    canary: Annotated[
        float | None, typer.Option(min=0.001, max=1, help="Only for this share of the keys, which it serves.")
    ] = None,
    by: By = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Let a release serve a task: every running worker loads it beside the one that serves, and swaps.

    It is verified, loaded and run here first, so that no worker is asked for what is broken.
    """
    from streams.learning import promoting

    share = shadow or canary
    if shadow and canary:
        raise typer.BadParameter("give one of --shadow and --canary: first the one, then the other")
    if share and ref is None:
        raise typer.BadParameter("name the release that shall challenge the champion")
    with _at_the_topic(config) as settings, err.status("fetching, verifying, loading"):
        if share and ref is not None:
            record = promoting.challenge(settings, task, ref, "shadow" if shadow else "canary", share, by)
        else:
            record = promoting.promote(settings, task, ref, by)
    _say(record, as_json)


def rollback(task: Task, by: By = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Take the last step back: a challenger is withdrawn; where there is none, the champion before serves again."""
    from streams.learning import promoting

    with _at_the_topic(config) as settings:
        record = promoting.roll_back(settings, task, by)
    if record["role"] == "challenger" and not as_json:
        print(f"{task}: the challenger {record['release']} is withdrawn")
    else:
        _say(record, as_json)


def status(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show which release each task has in each role; what a worker really serves is in its metrics."""
    from streams.learning.releases_topic import read_standing

    standing = read_standing(load_settings(config))
    records = [standing[key] for key in sorted(standing)]
    if as_json:
        print(json.dumps(records))
        return
    table = Table(
        "task", "role", Column("release", no_wrap=True), "mode", "since", "by", "before", "watched until", "why"
    )
    for one in records:
        mode = one["mode"] if one["mode"] == "serve" else f"{one['mode']} {one['share']:.0%}"
        before = one["previous"]["release"] if one["previous"] else ""
        until, why = one.get("watched_until", ""), one.get("why", "")
        since, by = one["promoted_at"], one["promoted_by"]
        cells = (one["task"], one["role"], one["release"], mode, since, by, before, until, why)
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)
    if not records:
        out.print("nothing was promoted: workers serve what models.releases names, else the newest", highlight=False)


def judge(
    task: Task,
    act: Annotated[bool, typer.Option("--act", help="Promote it if it is better, withdraw it if it is not.")] = False,
    fewest_labels: Annotated[int, typer.Option(min=1, help="Before nothing is decided.")] = 30,
    most_labels: Annotated[int, typer.Option(min=1, help="After which it is given up.")] = 20_000,
    error: Annotated[float, typer.Option(min=0.0001, max=0.5, help="Chance of a wrong decision, either way.")] = 0.05,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare a task's challenger with its champion by the labels that came for what both scored.

    The test is always valid: ask as often as you like, after every label if you want to.
    """
    from models.learning.sequential import DuelSettings
    from streams.learning.judge import judge as judged

    duel = DuelSettings(promote_error=error, rollback_error=error, fewest_labels=fewest_labels, most_labels=most_labels)
    with _at_the_topic(config, "judge") as settings, err.status("reading what both said, and the labels"):
        found = judged(settings, task, duel, act)
    if as_json:
        told = found._asdict() | {"standing": found.standing.model_dump(mode="json", exclude={"looks"})}
        print(json.dumps(told))
        return
    for line in lines_of(found):
        print(f"{task}: {line}")


def watch(
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False, config: ConfigFile = None
) -> None:
    """Act on what labels, dead letters and workers say of each task's releases, until told to stop ([rollout]).

    A challenger is promoted or withdrawn by the labels of texts drawn at random. What was promoted is taken back when
    they show that the release before is better, when more of its events become dead letters, or when workers refuse it.
    """
    from streams.learning.guard import Guard
    from streams.worker import set_up_logging

    set_up_logging()
    stop = threading.Event()
    with _at_the_topic(config, "judge") as settings:
        if not once:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
        guard, before = Guard(settings), dict[str, list[str]]()
        while True:
            guard.look()
            now = {task: lines_of(found) for task, found in guard.judged.items()}
            for task in now:
                if now[task] != before.get(task):
                    log.info("%s: %s", task, "; ".join(now[task]))
            before = now
            if once or stop.wait(settings.rollout.look_every_s):
                return


def lines_of(found: Judged) -> list[str]:
    """What labels say of a challenger, in lines for a person."""
    of = "the champion before, " if found.former else ""
    lines = [f"{of}{found.challenger} against {found.champion}: {found.standing.action}; {found.standing.reason}"]
    if found.not_counted:
        lines.append(f"{found.not_counted} labels of texts that were not drawn at random do not count")
    if not found.standing.tally.n:
        lines.append(
            "no label of a text drawn at random yet, so nothing is decided: `streamgauge drift watch` asks for such, or"
            " feedback says at_random"
        )
    return lines + (["done"] if found.done else [])


COMMANDS = (promote, rollback, judge, watch, status)


@contextmanager
def _at_the_topic(config: Path | None, role: Literal["releases", "judge"] = "releases") -> Iterator[Settings]:
    """The settings, once it is seen that the topics are there and what the role needs is allowed."""
    from streams.grants import MissingTopics, grants, require_access

    settings = load_settings(config)
    try:
        require_access(settings, grants(settings, role))
    except MissingTopics as error:
        raise typer.BadParameter(str(error)) from None
    with clear_errors():
        yield settings


def _say(record: Release, as_json: bool) -> None:
    if as_json:
        print(json.dumps(record))
    elif record["role"] == "challenger":
        place = "beside the champion" if record["mode"] == "shadow" else "in the champion's place"
        print(f"{record['task']}: {record['release']} is to score {record['share']:.1%} of the keys {place}")
    else:
        before = f", after {record['previous']['release']}" if record["previous"] else ""
        print(f"{record['task']}: {record['release']} is to serve{before}; workers swap within seconds")
