"""Files that are whole or absent after a crash, and one process at a time where two would be in each other's way."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import Busy


def flush(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes) -> None:
    """Make `content` all that is in a file, by one rename: whoever reads finds what was there before or all of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    flush(beside)
    beside.replace(path)
    flush(path.parent)


@contextmanager
def held(path: Path, who: str) -> Iterator[None]:
    """Hold a lock file. The system lets go of it when this process ends, however it does.

    Raises:
        Busy: another process holds it; the message says which, `who` is what is running there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read(20).strip() or "unknown"
            raise Busy(f"{path}: {who} is at work already (process {pid}): wait for it, or end it first") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
