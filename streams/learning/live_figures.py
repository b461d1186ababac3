"""How a challenger fares, kept beside what the gate said of it, where the run that made it is on this machine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from models.learning.approval import runs_of
from models.learning.run_files import read_live, write_live
from models.learning.sequential import Standing
from models.learning.verdict import read_verdict


def keep_figures(task: str, sha256: str, standing: Standing) -> Path | None:
    """Keep what labels say of a challenger in its run's folder, and on its page; returns the folder.

    `sha256` is that of its manifest; None: no run here made it. Raises IntegrityError for a damaged file.
    """
    folder = next((one for one in runs_of(task) if read_verdict(one).candidate.sha256 == sha256), None)
    if folder is not None and read_live(folder) != standing:
        write_live(folder, standing)
        page_made_anew(folder)
    return folder


def page_made_anew(folder: Path) -> str | None:
    """A run's page with what is known now, where it can be made; without the extra `train` the next run makes it."""
    try:
        from models.learning.page import write_page
    except ImportError:
        return None
    return str(write_page(folder, datetime.now(UTC)))
