"""The `streamgauge` command. Each subcommand reads its settings, calls one room, and prints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.errors import ModelError, RegistryUnavailable
from streams import base_commands, data_commands, dead_letter_commands, release_commands
from streams.access_commands import acls
from streams.bench.command import bench
from streams.classify_command import classify
from streams.command_line import AsJson, ConfigFile
from streams.compress_command import compress
from streams.evaluate_command import evaluate
from streams.exits import BROKER_UNAVAILABLE, USAGE, AccessRefused, BrokerUnavailable
from streams.learning import approval_commands, drift_commands, feedback_commands, retrain_command, rollout_commands
from streams.pretrain_command import pretrain
from streams.settings import Settings, SettingsError, load_settings
from streams.train_command import train

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
topics_app = typer.Typer(no_args_is_help=True, help="Create and list the topics.")
app.add_typer(topics_app, name="topics")
app.add_typer(dead_letter_commands.app, name="dead-letters")
app.add_typer(base_commands.app, name="bases")
app.add_typer(data_commands.app, name="data")
app.add_typer(release_commands.app, name="releases")
approval_commands.app.command(approval_commands.RUN)(retrain_command.retrain_command)
app.add_typer(approval_commands.app, name="retrain")
for command in rollout_commands.COMMANDS:
    release_commands.app.command()(command)
app.add_typer(feedback_commands.app, name="feedback")
app.add_typer(drift_commands.app, name="drift")
app.command()(train)
app.command()(evaluate)
app.command()(classify)
app.command()(compress)
app.command()(acls)
app.command()(bench)
app.command()(pretrain)


err = Console(stderr=True)
out = Console()


@app.command()
def demo(
    seconds: Annotated[float | None, typer.Option(min=1, help="End after so many seconds of events.")] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Show the whole system at work on sample events: embedded broker, worker, starter models, live view."""
    from streams.demo import run_demo
    from streams.demo_view import alert_row, route_row, view
    from streams.worker import set_up_logging

    set_up_logging()
    settings = _settings_of_children(config)
    releases = _starter_models(settings)
    _interrupt_on_sigterm()
    live = Live(console=err, refresh_per_second=8) if err.is_terminal else None
    shown = {"alerts": 0, "routes": 0}

    def show(running: Any, elapsed_s: float) -> None:
        if live is not None:
            live.update(view(running, elapsed_s))
            return
        tally = running.tally
        for name, latest, row in (("alerts", tally.alerts, alert_row), ("routes", tally.routes, route_row)):
            count = tally.outputs[name]
            for value in list(latest)[max(0, len(latest) - (count - shown[name])) :]:
                err.print(" | ".join(cell.plain for cell in row(value)), soft_wrap=True, highlight=False)
            shown[name] = count

    with contextlib.ExitStack() as stack:
        status = stack.enter_context(err.status("starting the embedded broker and a worker"))

        def first_show(running: Any, elapsed_s: float) -> None:
            if live is not None and not live.is_started:
                status.stop()
                stack.enter_context(live)
            show(running, elapsed_s)

        tally = run_demo(settings, releases, seconds, first_show)
    summary = tally.summary()
    if as_json:
        print(json.dumps(summary))
    else:
        out.print(", ".join(f"{name} {value:g}" for name, value in summary.items()))
    raise typer.Exit(0 if summary["lost"] == 0 else 1)


@app.command()
def worker(
    processes: Annotated[int, typer.Option(min=1, max=64, help="Worker processes on this machine.")] = 1,
    config: ConfigFile = None,
) -> None:
    """Run the Faust worker under a supervisor that starts it again when it ends."""
    from streams.live import pinned_releases
    from streams.supervisor import supervise, worker_environments
    from streams.worker import set_up_logging

    set_up_logging()
    settings = _settings_of_children(config)
    os.environ.update(pinned_releases(settings))
    envs = worker_environments(processes, settings.metrics.port, settings.models.threads)
    raise typer.Exit(supervise(envs, settings.worker.shutdown_s + 5))


@app.command()
def broker(
    kind: Annotated[str, typer.Argument(help="embedded or kafka")] = "embedded",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Kafka only; a free one when left out.")] = None,
    data: Annotated[Path | None, typer.Option(help="Kafka's data directory; a temporary one when left out.")] = None,
    config: ConfigFile = None,
) -> None:
    """Run a broker on this machine until interrupted, and print its bootstrap address."""
    from streams.broker import KafkaBroker
    from streams.embedded import embedded_broker
    from streams.topics import wanted_topics

    settings = load_settings(config)
    if kind == "embedded":
        running: Any = embedded_broker({one.name: one.partitions for one in wanted_topics(settings)})
    elif kind == "kafka":
        running = KafkaBroker(port=port, data_dir=data)
    else:
        raise typer.BadParameter(f"{kind!r} is not a broker; allowed: embedded, kafka")
    _interrupt_on_sigterm()
    with contextlib.suppress(KeyboardInterrupt), running as started:
        print(started.bootstrap, flush=True)
        err.print("Ctrl-C stops it. In another terminal: streamgauge topics create; streamgauge worker")
        threading.Event().wait()


@topics_app.command("create")
def topics_create(config: ConfigFile = None) -> None:
    """Create every topic Streamgauge reads and writes; existing ones stay as they are."""
    from streams.topics import create_topics

    outcomes = create_topics(load_settings(config))
    table = Table("topic", "state", "detail", "what to do")
    for outcome in outcomes:
        table.add_row(outcome.name, outcome.state, outcome.detail, outcome.todo)
    out.print(table)
    raise typer.Exit(1 if any(outcome.todo for outcome in outcomes) else 0)


@topics_app.command("list")
def topics_list(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the broker's topics with partitions, replication and retention."""
    from streams.topics import list_topics

    found = list_topics(load_settings(config))
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found]))
        return
    table = Table("topic", "partitions", "replication", "kept")
    for one in found:
        kept = "last value of each key" if one.compacted else _hours(one.retention_hours)
        table.add_row(one.name, str(one.partitions), str(one.replication), kept)
    out.print(table)


def _hours(hours: float | None) -> str:
    return "not known" if hours is None else f"{hours:g} h"


@app.command()
def schema(topic: Annotated[str | None, typer.Argument(help="One topic; all when left out.")] = None) -> None:
    """Print the JSON Schemas of the topics' values."""
    from streams.events import json_schemas

    schemas = json_schemas()
    if topic is not None and topic not in schemas:
        raise typer.BadParameter(f"no schema for {topic!r}; there are: {', '.join(schemas)}")
    print(json.dumps(schemas if topic is None else schemas[topic], indent=2))


@app.command()
def check(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Verify configuration, broker, topics, models and device; say what to do about each failure."""
    from streams.checks import render, run_checks

    checks = run_checks(load_settings(config), config)
    (err if as_json else out).print(render(checks))
    failed = [one for one in checks if one.ok is False]
    if as_json:
        print(json.dumps({"ok": not failed, "checks": [dataclasses.asdict(one) for one in checks]}))
    raise typer.Exit(1 if failed else 0)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON lines with ts and text.")],
    topic: Annotated[str, typer.Option(help="Where the lines go.")],
    speed: Annotated[str, typer.Option(help="Times real time, or max.")] = "1",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many lines.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Send a recorded stream to a topic, paced by its time stamps."""
    import time

    from streams.grants import Grant, MissingTopics, require_access
    from streams.replay import Pace, lines_of, replay
    from streams.security import librdkafka_config

    settings, pace = load_settings(config), Pace(_speed(speed))
    keys = [source.key for source in settings.active_sources.values() if source.topic == topic]
    with contextlib.suppress(MissingTopics):  # the broker may make it at its first use
        require_access(settings, [Grant("topic", topic, "Write")])
    started_s = time.monotonic()
    with _progress() as progress:
        bar = progress.add_task(f"replaying to {topic}", total=sum(1 for _ in lines_of(file, limit)))
        count = replay(
            file,
            topic,
            librdkafka_config(settings.broker),
            pace=pace,
            key_path=keys[0] if keys else None,
            limit=limit,
            on_sent=lambda _: progress.advance(bar),
        )
    seconds = time.monotonic() - started_s
    if as_json:
        print(json.dumps({"topic": topic, "records": count, "seconds": round(seconds, 3)}))
    else:
        out.print(f"{count} records to {topic} in {seconds:.1f} s, all acknowledged", highlight=False)


def _settings_of_children(config: Path | None) -> Settings:
    """The settings, and a note in the environment so that worker processes read the same file."""
    settings = load_settings(config)
    if config is not None:
        os.environ["STREAMGAUGE_CONFIG"] = str(config.resolve())
    return settings


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        if (speed := float(text)) > 0:
            return speed
    except ValueError:
        pass
    raise typer.BadParameter(f"{text!r} is not a speed; allowed: max, or a number above 0 (2 is twice real time)")


def _starter_models(settings: Settings) -> dict[str, Path]:
    from models.starter import ensure_starter

    given = settings.models.releases
    releases: dict[str, Path] = {}
    with _progress() as progress:
        for task in settings.tasks:
            if task in given:
                continue
            bar = progress.add_task(f"starter model: {task}", total=None)

            def on_progress(what: str, done: int, total: int, bar: Any = bar, task: str = task) -> None:
                progress.update(bar, description=f"{task}: {what}", completed=done, total=total)

            releases[task] = ensure_starter(task, on_progress)
            progress.update(bar, description=f"{task}: ready", completed=1, total=1)
    return releases


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err
    )


def _interrupt_on_sigterm() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Errors a user can cause end in one message and an exit code, not in a traceback."""
    from streams.broker import BrokerError
    from streams.publishing import DeliveryFailed
    from streams.replay import ReplayError
    from streams.security import SecurityError

    try:
        yield
    except (BrokerUnavailable, RegistryUnavailable) as error:
        err.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(BROKER_UNAVAILABLE)
    except (SettingsError, SecurityError, AccessRefused, DeliveryFailed, ModelError, ReplayError, BrokerError) as error:
        err.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(USAGE)


def main() -> None:
    """Entry point of the console script."""
    with _plain_errors():
        app()


if __name__ == "__main__":
    main()
