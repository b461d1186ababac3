"""`streamgauge releases promote|rollback|status`: which release serves, changed in every worker by one record."""

from __future__ import annotations

import getpass
import json
import platform
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from models.errors import ModelError, ReleaseNotFound
from models.probation import tried
from models.references import CHAMPION, is_reference, parse_reference
from models.registry import Registry
from models.releases import MANIFEST, file_sha256, find_release, verify
from streams.events import Release, ReleaseRef, iso
from streams.grants import MissingTopics, grants, require_access
from streams.learning.releases_topic import Key, Standing, read_standing, write
from streams.model_output import clear_errors
from streams.settings import Settings, load_settings

err, out = Console(stderr=True), Console()

Task = Annotated[str, typer.Argument(metavar="TASK")]
Config = Annotated[Path | None, typer.Option("--config", help="A configuration file; default: ./streamgauge.toml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def promote(
    task: Task,
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="[REF]", help="models:/TASK@ALIAS, a release id or a directory; default: the challenger."
        ),
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who promotes; default: you, on this machine.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let a release serve a task: every running worker loads it beside the one that serves, and swaps.

    It is verified, loaded and run here first, so that no worker is asked for what is broken.
    """
    settings = _allowed(config)
    with clear_errors():
        standing = read_standing(settings)
        challenger = standing.get((task, "challenger"))
        with err.status("fetching, verifying, loading"):
            meant = challenger if ref is None else _release_ref(settings, task, ref)
            if meant is None:
                raise ReleaseNotFound(f"{task}: has no challenger; write: streamgauge releases promote {task} REF")
            record = _champion(settings, task, meant, standing, by)
        changes: dict[Key, Release | None] = {(task, "champion"): record}
        if challenger is not None and challenger["sha256"] == record["sha256"]:
            changes[task, "challenger"] = None
        write(settings, changes)
        _let_alias_follow(record)
    _say(record, as_json)


def rollback(
    task: Task,
    by: Annotated[str | None, typer.Option(help="Who rolls back; default: you, on this machine.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take the last step back: a challenger is withdrawn; where there is none, the champion before serves again."""
    settings = _allowed(config)
    with clear_errors():
        standing = read_standing(settings)
        if (challenger := standing.get((task, "challenger"))) is not None:
            write(settings, {(task, "challenger"): None})
            print(json.dumps({"withdrawn": challenger}) if as_json else f"{task}: {challenger['release']} is withdrawn")
            return
        champion = standing.get((task, "champion"))
        if champion is None or (previous := champion["previous"]) is None:
            raise ReleaseNotFound(
                f"{task}: nothing was promoted before; name the release: streamgauge releases promote {task} REF"
            )
        record = _champion(settings, task, previous, standing, by)
        write(settings, {(task, "champion"): record})
        _let_alias_follow(record)
    _say(record, as_json)


def status(config: Config = None, as_json: AsJson = False) -> None:
    """Show which release each task has in each role; what a worker really serves is in its metrics."""
    settings = load_settings(config)
    standing = read_standing(settings)
    records = [standing[key] for key in sorted(standing)]
    if as_json:
        print(json.dumps(records))
        return
    table = Table("task", "role", Column("release", no_wrap=True), "mode", "since", "by", "before")
    for one in records:
        mode = one["mode"] if one["mode"] == "serve" else f"{one['mode']} {one['share']:.0%}"
        before = one["previous"]["release"] if one["previous"] else ""
        cells = (one["task"], one["role"], one["release"], mode, one["promoted_at"], one["promoted_by"], before)
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)
    if not records:
        out.print(
            "nothing was promoted: workers serve what models.releases names, else each task's newest", highlight=False
        )


def _allowed(config: Path | None) -> Settings:
    """The settings, once it is seen that the topic is there and ours to write."""
    settings = load_settings(config)
    try:
        require_access(settings, grants(settings, "releases"))
    except MissingTopics as error:
        raise typer.BadParameter(str(error)) from None
    return settings


def _release_ref(settings: Settings, task: str, ref: str) -> ReleaseRef:
    """What a person named, so that every worker finds the same: an alias becomes the version that it means now."""
    if is_reference(ref):
        ref = str(Registry().resolve(parse_reference(ref)).reference)
    found = _found(task, ref)
    tried(find_release(task, ref), settings.models.device, settings.models.runtime, settings.models.threads)
    return found


def _found(task: str, ref: str | None) -> ReleaseRef:
    """A release as workers will find it: by its version or id, or where it lies; verified."""
    directory = find_release(task, ref).resolve()
    manifest = verify(directory)
    lasting = ref is not None and (is_reference(ref) or ref == manifest.release)
    return {
        "reference": ref if ref is not None and lasting else str(directory),
        "release": manifest.release,
        "sha256": file_sha256(directory / MANIFEST),
    }


def _champion(settings: Settings, task: str, meant: ReleaseRef, standing: Standing, by: str | None) -> Release:
    return {
        "task": task,
        "role": "champion",
        "mode": "serve",
        "share": 1.0,
        "reference": meant["reference"],
        "release": meant["release"],
        "sha256": meant["sha256"],
        "promoted_at": iso(time.time()),
        "promoted_by": by or f"{getpass.getuser()}@{platform.node()}",
        "previous": _previous(settings, task, meant, standing),
    }


def _previous(settings: Settings, task: str, meant: ReleaseRef, standing: Standing) -> ReleaseRef | None:
    """What serves now; at the first promotion that is what the settings name, as far as this machine can tell."""
    champion = standing.get((task, "champion"))
    if champion is None:
        try:
            found = _found(task, settings.models.releases.get(task))
        except ModelError as error:
            err.print(Text(f"no rollback from this promotion: what serves now is not found here ({error})"))
            return None
        return None if found["sha256"] == meant["sha256"] else found
    if champion["sha256"] == meant["sha256"]:
        return champion["previous"]
    return {"reference": champion["reference"], "release": champion["release"], "sha256": champion["sha256"]}


def _let_alias_follow(record: Release) -> None:
    """The registry's alias names what serves; it is only a name, so it is moved last."""
    if is_reference(record["reference"]):
        registry = Registry()
        registry.set_alias(registry.resolve(parse_reference(record["reference"])), CHAMPION)


def _say(record: Release, as_json: bool) -> None:
    if as_json:
        print(json.dumps(record))
        return
    before = f", after {record['previous']['release']}" if record["previous"] else ""
    print(f"{record['task']}: {record['release']} is to serve{before}; workers swap within seconds")
