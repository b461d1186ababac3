"""How the commands of a model owner talk: errors in one line with an exit code, progress as a bar on standard error."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from models.errors import DeviceUnavailable, ExportMismatch, IntegrityError, ModelError, RegistryUnavailable


@contextmanager
def clear_errors() -> Iterator[None]:
    """A ModelError becomes one line and exit code 1 (something broke) or 2 (used wrongly)."""
    try:
        yield
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        broken = isinstance(error, IntegrityError | ExportMismatch | DeviceUnavailable | RegistryUnavailable)
        raise typer.Exit(1 if broken else 2) from error


@contextmanager
def progress_bar() -> Iterator[Any]:
    """A bar on standard error, as the callable that `models` takes: (what, done, in all)."""
    percentage = TextColumn("{task.percentage:>3.0f}%")
    columns = (TextColumn("{task.description}"), BarColumn(), percentage, TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        row = bar.add_task("start", total=None)
        yield lambda what, done, total: bar.update(row, description=what, completed=done, total=total)
