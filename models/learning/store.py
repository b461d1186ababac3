"""The opinions on a task, on disk: a version for each time that feedback was taken in, none of which ever changes.

    home()/learning/<task>/versions/00000001/{opinions.parquet, withdrawals.parquet, waiting.parquet, manifest.json}

A version is written beside the others, flushed, and made visible by one rename: after a crash it is whole or absent.
Its manifest says up to where in the feedback topic it has taken in, so that nothing is lost or counted twice: whatever
lies before is in it, and nothing behind. It names its parent by the hash of that one's manifest. Texts are kept as they
were served; the folder is its owner's alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.durable import flush
from models.errors import BadTask, IntegrityError
from models.learning.opinions import Ledger, Opinion, Position, Statement, Withdrawal, disputed, opinions_of
from models.learning.tables import FILES, Table, read_table, write_table
from models.lineage import Code, Sha256, this_code
from models.releases import MAX_MANIFEST_BYTES, FileName, file_sha256, home, parsed
from models.tasks import NAME

MANIFEST = "manifest.json"
KEPT = "kept.txt"  # why a version is not to be removed with its kind
_VERSION = re.compile(r"\d{8}")


@dataclass(frozen=True)
class Waiting:
    """A record of feedback as it came, on an event that nobody knows yet; since when, in seconds since 1970."""

    at: Position
    since_s: float
    timestamp_ms: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True)
class Contents:
    """All that a version holds."""

    ledger: Ledger
    waiting: tuple[Waiting, ...] = ()


class ReadUpTo(BaseModel):
    """How far a feedback topic was read: by partition, the first offset that was not.

    `topic_id` is the broker's, another one when the topic was made anew; empty where the broker has none.
    """

    model_config = ConfigDict(frozen=True)

    topic: str
    topic_id: str
    offsets: dict[int, int]

    def start(self, topic: str, topic_id: str, partition: int) -> int:
        """Where to go on in this topic: at its beginning, unless it is the one that was read."""
        same = (topic, topic_id) == (self.topic, self.topic_id)
        return self.offsets.get(partition, 0) if same else 0


class ParentVersion(BaseModel):
    """The version before; `sha256` is that of its manifest."""

    model_config = ConfigDict(frozen=True)

    version: int
    sha256: Sha256


class VersionManifest(BaseModel):
    """What a version holds and where it comes from. `content_sha256` is over the rows, whatever the file format.

    `ends` counts what became of every record of feedback on the task since the first version; with those that wait they
    add up to the records.
    """

    model_config = ConfigDict(frozen=True)

    task: str
    version: int = Field(ge=1)
    parent: ParentVersion | None
    created_at: datetime
    code: Code
    files: dict[FileName, Sha256]
    content_sha256: Sha256
    opinions: int
    withdrawals: int
    waiting: int
    annotators: int
    disputed: int = Field(description="texts on whose label annotators differ")
    labels: dict[str, int]
    ends: dict[str, int]
    feedback: ReadUpTo


class DatasetStore:
    """The versions of one task. Any number of processes may read; the one that adds must hold off all others.

    Args:
        task: its name.
        folder: of all tasks; by default `home()/learning`.

    Raises:
        BadTask: no task name.
    """

    def __init__(self, task: str, folder: Path | None = None) -> None:
        if not NAME.fullmatch(task):
            raise BadTask(f"{task!r} is no task name: small letters, digits, `-` and `_`, a letter first, 64 at most")
        self.task = task
        self.folder = (folder or home() / "learning") / task / "versions"

    def numbers(self) -> list[int]:
        """The versions that are there, oldest first."""
        names = (path.name for path in self.folder.glob("*") if path.is_dir())
        return sorted(int(name) for name in names if _VERSION.fullmatch(name))

    def head(self) -> VersionManifest | None:
        """The newest version's manifest; None when there is no version. Raises IntegrityError."""
        numbers = self.numbers()
        return self.manifest(numbers[-1]) if numbers else None

    def manifest(self, version: int) -> VersionManifest:
        """A version's manifest. Raises IntegrityError when it is missing or malformed."""
        path = self.path(version) / MANIFEST
        try:
            with path.open("rb") as file:
                content = file.read(MAX_MANIFEST_BYTES + 1)
        except OSError as error:
            there = ", ".join(map(str, self.numbers()[-5:])) or "none"
            raise IntegrityError(f"{path}: cannot be read: {error.strerror}; newest versions: {there}") from error
        found = parsed(VersionManifest, path, content, MAX_MANIFEST_BYTES)
        if (found.task, found.version) != (self.task, version):
            raise IntegrityError(f"{path}: is that of version {found.version} of {found.task!r}; put it back there")
        return found

    def path(self, version: int) -> Path:
        """The directory of a version, whether it is there or not."""
        return self.folder / f"{version:08d}"

    def contents(self, version: int) -> Contents:
        """All that a version holds. Raises IntegrityError when a file is missing or is not the manifest's."""
        manifest, folder = self.manifest(version), self.path(version)
        if set(manifest.files) != set(FILES):
            raise IntegrityError(f"{folder / MANIFEST}: files: {', '.join(FILES)} are expected, no more and no less")
        for name, expected in manifest.files.items():
            if file_sha256(folder / name) != expected:
                raise IntegrityError(
                    f"{folder / name}: is not the file that was written; restore it, or remove {folder}: its"
                    " feedback is then read again, as far as the topic still holds it"
                )
        return _contents(self.task, {name: read_table(folder / name) for name in FILES})

    def opinions(self, version: int | None = None) -> list[Opinion]:
        """The labels that count in a version, the newest when left out; by key and annotator. Raises IntegrityError."""
        head = version or next(reversed(self.numbers()), None)
        return opinions_of(self.contents(head).ledger) if head else []

    def add(self, contents: Contents, ends: Mapping[str, int], feedback: ReadUpTo, now: datetime) -> VersionManifest:
        """Make the next version, durable when this returns.

        Args:
            contents: all that it holds.
            ends: what became of the records that were taken in since the version before.
            feedback: up to where they were.
            now: the wall clock.
        """
        self._tidy()
        before = self.head()
        building = Path(tempfile.mkdtemp(prefix=".version-", dir=self.folder))  # readable by its owner alone
        tables = _tables(contents)
        for name, table in tables.items():
            write_table(building / name, FILES[name], table)
            flush(building / name)
        opinions = opinions_of(contents.ledger)
        manifest = VersionManifest(
            task=self.task,
            version=before.version + 1 if before else 1,
            parent=self._as_parent(before),
            created_at=now,
            code=this_code(),
            files={name: file_sha256(building / name) for name in tables},
            content_sha256=_content_sha256(tables),
            opinions=len(opinions),
            withdrawals=len(contents.ledger) - len(opinions),
            waiting=len(contents.waiting),
            annotators=len({one.annotator for one in opinions}),
            disputed=len(disputed(opinions)),
            labels=dict(sorted(Counter(one.label for one in opinions).items())),
            ends=dict(sorted((Counter(before.ends if before else {}) + Counter(ends)).items())),
            feedback=feedback,
        )
        (building / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        flush(building / MANIFEST)
        flush(building)
        building.rename(self.path(manifest.version))
        flush(self.folder)
        return manifest

    def _as_parent(self, before: VersionManifest | None) -> ParentVersion | None:
        if before is None:
            return None
        return ParentVersion(version=before.version, sha256=file_sha256(self.path(before.version) / MANIFEST))

    def _tidy(self) -> None:
        """Make the folder; remove what a process that ended at work left behind."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, mode=0o700)
            flush(self.folder.parent)
            flush(self.folder.parent.parent)
        for left in self.folder.glob(".version-*"):
            shutil.rmtree(left)

    def keep(self, version: int, why: str) -> None:
        """See to it that a version stays, such as one that a release was trained on. Raises IntegrityError."""
        self.manifest(version)
        (self.path(version) / KEPT).write_text(f"{why}\n", encoding="utf-8")

    def prune(self, newest: int) -> list[int]:
        """Remove all but the newest so many versions, and those that are kept; returns which went, oldest first."""
        gone = [one for one in self.numbers()[:-newest] if not (self.path(one) / KEPT).is_file()]
        for version in gone:
            hidden = self.folder / f".version-{version}"
            self.path(version).rename(hidden)  # so that nobody finds a part of it
            shutil.rmtree(hidden)
        return gone


def _tables(contents: Contents) -> dict[str, Table]:
    """The rows of each file, in an order that depends on the contents alone."""
    said = [contents.ledger[slot] for slot in sorted(contents.ledger)]
    waiting = sorted(contents.waiting, key=lambda one: one.at)
    return {
        "opinions.parquet": [_row(one.said, one.at) for one in said if isinstance(one.said, Opinion)],
        "withdrawals.parquet": [_row(one.said, one.at) for one in said if isinstance(one.said, Withdrawal)],
        "waiting.parquet": [
            _row(one, one.at) | {"headers": [{"name": name, "value": value} for name, value in one.headers]}
            for one in waiting
        ],
    }


def _row(what: Opinion | Withdrawal | Waiting, at: Position) -> dict[str, Any]:
    fields = {name: value for name, value in vars(what).items() if name not in ("task", "at")}
    return fields | {"partition": at.partition, "offset": at.offset}


def _contents(task: str, tables: Mapping[str, Table]) -> Contents:
    said: list[Statement] = []
    for kind, name in ((Opinion, "opinions.parquet"), (Withdrawal, "withdrawals.parquet")):
        said += [Statement(kind(task, **fields), at) for at, fields in map(_split, tables[name])]
    waiting = tuple(
        Waiting(at, **fields | {"headers": tuple((one["name"], one["value"]) for one in fields["headers"])})
        for at, fields in map(_split, tables["waiting.parquet"])
    )
    return Contents({one.slot: one for one in said}, waiting)


def _split(row: Mapping[str, Any]) -> tuple[Position, dict[str, Any]]:
    fields = dict(row)
    return Position(fields.pop("partition"), fields.pop("offset")), fields


def _content_sha256(tables: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    digest = hashlib.sha256()
    for name, rows in tables.items():
        digest.update(f"{name}\n".encode())
        for row in rows:
            digest.update(json.dumps(row, sort_keys=True, default=bytes.hex).encode() + b"\n")
    return digest.hexdigest()
