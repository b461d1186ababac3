"""The commands `streamgauge drift watch|status`: whether what comes is what the releases were made for.

With `--json` standard output carries one JSON object last. Exit codes: 0 done (of `status`: nothing has moved), 1 of
`status`: something has, 2 used wrongly or not allowed, 75 the broker is away.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streams.command_line import AsJson, ConfigFile

if TYPE_CHECKING:
    from models.learning.alarms import Standing
    from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Watch over drift: alarms, and which texts people should label.")
err, out = Console(stderr=True), Console()
log = logging.getLogger("streams.learning.drift")


@app.command()
def watch(
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    config: ConfigFile = None,
) -> None:
    """Compare predictions with the profiles of their releases, raise alarms, and ask people for labels.

    It goes on, with a look every drift.look_every_s, until it is told to stop.
    """
    from streams.grants import grants, require_access
    from streams.learning.drift_watch import DriftWatch
    from streams.settings import load_settings
    from streams.worker import set_up_logging

    set_up_logging()
    settings = load_settings(config)
    require_access(settings, grants(settings, "drift"))
    stop = threading.Event()
    if not once:
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: stop.set())
        _serve_metrics(settings)
    with err.status("reading what was asked, and the last predictions"):
        found = DriftWatch(settings)
        found.look()
    while not once and not stop.wait(settings.drift.look_every_s):
        found.look()


@app.command()
def status(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show how far each task's release is from its profile; raises no alarm and asks for nothing."""
    from streams.learning.drift_watch import DriftWatch
    from streams.settings import load_settings

    settings = load_settings(config)
    with err.status("reading the last predictions"):
        standings = DriftWatch(settings, silent=True).look()
    moved = any(one.moved for one in standings)
    if as_json:
        print(json.dumps({"moved": moved, "tasks": [_row(one) for one in standings]}))
        raise typer.Exit(int(moved))
    table = Table("task", "release", "quantity", "distance", "limit")
    for one in standings:
        accuracy = one.expected.accuracy
        for quantity, shift in one.shifts.items():
            style = "bold red" if shift.drifted else ""
            table.add_row(one.task, one.release, quantity, f"{shift.value:.3f}", f"{shift.limit:.3f}", style=style)
        if accuracy is not None:
            fell = f"{one.expected_at_release:.3f} at release"
            table.add_row(one.task, one.release, "expected accuracy", f"{accuracy.value:.3f}", fell)
    out.print(table)
    raise typer.Exit(int(moved))


def _serve_metrics(settings: Settings) -> None:
    """Those of the watch alone: the others would say that a worker here is not ready."""
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    from streams.metrics import OF_THE_WATCH
    from streams.settings import SettingsError

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for metric in OF_THE_WATCH:
        registry.register(metric)
    host, port = settings.metrics.host, settings.drift.port
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError(f"drift.port: cannot listen on {host}:{port} ({error.strerror}); set a free one") from None
    log.info("metrics on http://%s:%d/metrics", host, server.server_port)


def _row(standing: Standing) -> dict[str, Any]:
    accuracy, its = standing.expected.accuracy, standing.labelled
    return {
        "task": standing.task,
        "release": standing.release,
        "events": standing.expected.n,
        "shifts": {name: {"value": one.value, "limit": _finite(one.limit)} for name, one in standing.shifts.items()},
        "moved": sorted(standing.moved),
        "expected_accuracy": None if accuracy is None else accuracy.value,
        "expected_accuracy_at_release": standing.expected_at_release,
        "labelled": 0 if its is None else its.n,
        "labelled_accuracy": None if its is None else its.accuracy.value,
    }


def _finite(limit: float) -> float | None:
    return limit if limit < float("inf") else None
