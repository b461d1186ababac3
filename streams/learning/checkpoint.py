"""How far the feedback topic was taken in, over all tasks: what a collector goes on from.

    home()/learning/collected.json

It is written when the versions that hold the feedback are durable, so it may lag behind them, never run ahead: a record
that comes again is passed over by its task, whose newest version says that it is in. It also names those versions. When
one is gone (removed, or an older copy of the folder was put back), its task's feedback is read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from models.durable import replace_file
from models.learning.store import ReadUpTo, VersionManifest
from models.releases import MAX_MANIFEST_BYTES, parsed

FILE = "collected.json"


class Checkpoint(BaseModel):
    """What was taken in: how far, in which version of each task, and how many records were not understood."""

    model_config = ConfigDict(frozen=True)

    read: ReadUpTo
    versions: dict[str, int]
    refused: dict[str, int]

    def start(self, heads: Mapping[str, VersionManifest | None], topic: str, topic_id: str, partition: int) -> int:
        """Where to go on in a partition, given the newest version there is of each task."""
        start = self.read.start(topic, topic_id, partition)
        for task, head in heads.items():
            if (head.version if head else 0) < self.versions.get(task, 0):
                start = min(start, head.feedback.start(topic, topic_id, partition) if head else 0)
        return start

    def save(self, folder: Path) -> None:
        """Make it the one that is gone on from, durable when this returns."""
        replace_file(folder / FILE, self.model_dump_json(indent=2).encode())


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The one that is gone on from; None when nothing was taken in yet. Raises IntegrityError when it is damaged."""
    try:
        with (folder / FILE).open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        return None
    return parsed(Checkpoint, folder / FILE, content, MAX_MANIFEST_BYTES)
