"""`streamgauge releases ...`: the model registry, its versions and its aliases.

People read tables; with `--json` standard output carries one JSON value and nothing else. Exit codes: 0 done, 1 failed
(the registry does not answer, a release is not what was registered), 2 used wrongly.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Column, Table
from rich.text import Text

from models import releases
from models.cards import CARD, card
from models.errors import ReleaseNotFound
from models.pulling import cache
from models.pulling import pull as pull_version
from models.references import SCHEME, is_reference, parse_reference
from models.registry import Registry, Version
from models.tasks import load_task
from streams.command_line import AsJson
from streams.model_output import clear_errors

if TYPE_CHECKING:
    from models.releases import Manifest

app = typer.Typer(no_args_is_help=True, help="The model registry: register, alias, pull and verify releases.")
err, out = Console(stderr=True), Console()

Ref = Annotated[str, typer.Argument(metavar="REF", help="models:/TASK@ALIAS or models:/TASK/VERSION.")]
Anywhere = Annotated[
    str, typer.Argument(metavar="REF", help="models:/TASK@ALIAS, models:/TASK/VERSION, or a release's directory.")
]
Address = Annotated[
    str | None, typer.Option("--registry", help="MLflow's URI; default: $MLFLOW_TRACKING_URI, else a file here.")
]


@app.command("list")
def list_releases(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="One task; all when left out.")] = None,
    registry: Address = None,
    as_json: AsJson = False,
) -> None:
    """List what is registered, oldest first, with aliases and lineage."""
    with clear_errors(), _waiting("asking the registry"):
        opened = Registry(registry)
        tasks = opened.tasks() if task is None else [load_task(task).name]
        found = [version for one in tasks for version in opened.versions(one)]
    if as_json:
        print(json.dumps([_row(version) for version in found]))
        return
    table = Table(Column("version", no_wrap=True), "aliases", Column("release", no_wrap=True))
    for name in ("dev macro-F1", "parent", "registered"):
        table.add_column(name)
    for version in found:
        grade = "" if version.macro_f1 is None else f"{version.macro_f1:.3f}"
        when = f"{version.registered_at:%Y-%m-%d %H:%M}"
        cells = (
            f"{version.task}/{version.number}",
            ", ".join(version.aliases),
            version.release,
            grade,
            version.parent or "",
            when,
        )
        table.add_row(*(Text(cell) for cell in cells))
    out.print(table)
    if not found:
        out.print("nothing is registered: `streamgauge releases register TASK` registers a release", highlight=False)


@app.command()
def show(ref: Anywhere, registry: Address = None, as_json: AsJson = False) -> None:
    """Show a release's model card, or with --json its manifest; the files are fetched and verified for it."""
    with clear_errors(), _waiting("fetching"):
        directory = _directory(ref, registry)
        manifest = releases.verify(directory)
    if as_json:
        print(json.dumps({"directory": str(directory), "manifest": manifest.model_dump(mode="json")}))
    else:
        print(_card(directory, manifest), end="")


@app.command()
def register(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task of the release.")],
    release: Annotated[str | None, typer.Option(help="A release id or directory; default: the newest.")] = None,
    alias: Annotated[str | None, typer.Option(help="Also let this alias name it, such as challenger.")] = None,
    registry: Address = None,
    as_json: AsJson = False,
) -> None:
    """Register a release as a new version of each of its tasks; once registered it never changes."""
    with clear_errors(), _waiting("registering"):
        directory = releases.find_release(load_task(task).name, release)
        opened = Registry(registry)
        versions = opened.register(directory)
        if alias is not None:
            for version in versions:
                opened.set_alias(version, alias)
            versions = [opened.resolve(version.reference) for version in versions]
    if as_json:
        print(json.dumps([_row(version) for version in versions]))
        return
    for version in versions:
        print(f"{version.reference}{''.join(f' @{one}' for one in version.aliases)}: {version.release}")


@app.command()
def alias(
    ref: Ref,
    name: Annotated[str | None, typer.Argument(metavar="[ALIAS]", help="Such as champion or challenger.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Let REF's alias name nothing any more.")] = False,
    registry: Address = None,
) -> None:
    """Let an alias name a version: `alias models:/risk@challenger champion` promotes, `alias models:/risk/3 champion`
    rolls back. The release is fetched and verified first, so that no alias names what cannot serve.
    """
    if remove == (name is not None):
        raise typer.BadParameter(
            "give either the ALIAS that shall name REF, or --remove with a REF such as risk@champion"
        )
    with clear_errors(), _waiting("fetching, verifying"):
        reference = parse_reference(ref)
        opened = Registry(registry)
        version = opened.resolve(reference)
        if name is None:
            if reference.alias is None:
                raise ReleaseNotFound(
                    f"{ref}: names a version; --remove takes an alias, such as {reference.task}@champion"
                )
            opened.remove_alias(reference.task, reference.alias)
            said = f"{reference}: named {version.reference}, names nothing now"
        else:
            pull_version(opened, version, cache())
            before = [one.number for one in opened.versions(reference.task) if name in one.aliases]
            opened.set_alias(version, name)
            was = f", was {SCHEME}{reference.task}/{before[0]}" if before else ""
            said = f"{SCHEME}{reference.task}@{name}: {version.reference}, release {version.release}{was}"
    print(said)


@app.command()
def pull(
    ref: Ref,
    to: Annotated[
        Path | None, typer.Option("--out", help="Also copy it to this directory, which must not be there.")
    ] = None,
    registry: Address = None,
) -> None:
    """Fetch a release, verify it by its hashes, and print the directory it is in."""
    with clear_errors(), _waiting("fetching, verifying"):
        directory = _directory(ref, registry)
        if to is not None:
            with releases.workplace(to.absolute().parent) as tmp_dir:
                for name in (*releases.read_manifest(directory).files, releases.MANIFEST):
                    (tmp_dir / name).write_bytes((directory / name).read_bytes())
                directory = releases.publish(tmp_dir, to.absolute())
    print(directory)


@app.command()
def verify(
    refs: Annotated[list[str], typer.Argument(metavar="REF...", help="In the registry, or directories.")],
    registry: Address = None,
    as_json: AsJson = False,
) -> None:
    """Fetch releases anew and check every byte against what was registered; a directory against its manifest."""
    verified = []
    with clear_errors():
        for ref in refs:
            with _waiting(f"verifying {ref}"):
                directory = _directory(ref, registry, fresh=True)
                manifest = releases.verify(directory)
            sha256 = releases.file_sha256(directory / releases.MANIFEST)
            verified.append({"ref": ref, "release": manifest.release, "sha256": sha256, "files": len(manifest.files)})
            if not as_json:
                print(f"{ref}: {manifest.release}, {len(manifest.files)} files as they were made, manifest {sha256}")
    if as_json:
        print(json.dumps(verified))


def _directory(ref: str, registry: str | None, fresh: bool = False) -> Path:
    """Of a release in the registry, or the directory itself."""
    if not is_reference(ref) and (Path(ref) / releases.MANIFEST).is_file():
        return Path(ref)
    opened = Registry(registry)
    return pull_version(opened, opened.resolve(parse_reference(ref)), cache(), fresh)


def _card(directory: Path, manifest: Manifest) -> str:
    """The card that came with a release; older ones have none, theirs is made from the manifest."""
    if CARD in manifest.files:
        return (directory / CARD).read_text(encoding="utf-8")
    return card(manifest)


def _row(version: Version) -> dict[str, Any]:
    return {
        "ref": str(version.reference),
        "task": version.task,
        "version": version.number,
        "aliases": list(version.aliases),
        "release": version.release,
        "sha256": version.sha256,
        "bytes": version.total_bytes,
        "dev_macro_f1": version.macro_f1,
        "parent": version.parent,
        "registered_at": version.registered_at.isoformat(),
    }


def _waiting(what: str) -> Status:
    return err.status(what)
