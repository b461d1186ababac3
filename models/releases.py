"""Releases: immutable directories of a model, its tokenizer and a manifest that says where both come from.

    home()/releases/<task>/<release>/{model.onnx, packed.onnx, tokenizer.json, config.json, golden.json, profile.json,
                                      card.md, manifest.json}
    home()/starter/<task>/<key>/...      the starter models, see `models.starter`

A release serves one task or several: its encoder has a head for each. Releases made by 0.1.0 have one head and none
of packed.onnx, config.json, golden.json and profile.json, and stay good.
A release becomes visible by one rename, whole; names that start with a dot are work in progress and never looked at.
"""

import hashlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from models.durable import flush
from models.errors import IntegrityError, ReleaseExists, ReleaseNotFound
from models.lineage import Code, Parent, Sha256
from models.onnx_files import refuse_foreign_tensors
from models.out_of_scope import Scope
from models.references import is_reference
from models.temperature import MAX_BENDS, Bend, Calibration

MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
PACKED = "packed.onnx"  # the graph for texts side by side, if the encoder can; its weights are in model.onnx
CONFIG = "config.json"  # the encoder's architecture, for a runtime that builds it from its weights
MANIFEST = "manifest.json"
GRAPH_SUFFIX = ".onnx"

ROOMS = ("releases", "starter")  # what was trained goes before the starter models

MAX_MANIFEST_BYTES = 4 << 20
MAX_FILE_BYTES = 2 << 30  # what one ONNX file can hold at most

FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]  # no way out of the directory

Precision = Literal["fp32", "fp16", "int8-dynamic", "int8-static"]  # see `models.quantization`

M = TypeVar("M", bound=BaseModel)

log = logging.getLogger(__name__)


class Base(BaseModel):
    """The encoder a release was fine-tuned from; `parent` is the one that was made from, by further pre-training."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: Sha256
    parent: "Base | None" = None


class Data(BaseModel):
    """The examples a release was trained on, `rows` of them after checking."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: Sha256
    rows: int


class HeadEntry(BaseModel):
    """What a release knows of one task; `labels` is the order of its columns, `metrics` its grades when it was made."""

    model_config = ConfigDict(frozen=True)

    task: str
    labels: tuple[str, ...] = Field(min_length=2)
    temperature: float = Field(gt=0, description="logits are divided by it before the softmax")
    bends: tuple[Bend, ...] = Field(
        default=(), max_length=MAX_BENDS, description="from which lead of the best label on another one holds"
    )
    data: Data
    metrics: dict[str, Any]
    scope: Scope | None = Field(default=None, description="from where on a text is in scope, if that was learned")

    @field_validator("bends")
    @classmethod
    def _by_ascending_lead(cls, bends: tuple[Bend, ...]) -> tuple[Bend, ...]:
        leads = [bend.lead for bend in bends]
        if leads != sorted(set(leads)):
            raise ValueError("the leads must ascend")
        return bends

    @property
    def calibration(self) -> Calibration:
        """What its logits are divided by."""
        return Calibration(self.temperature, self.bends)


class Manifest(BaseModel):
    """What a release is and where it comes from; the logits' columns are those of the heads, one after the other."""

    model_config = ConfigDict(frozen=True)

    release: str = Field(min_length=1)
    heads: tuple[HeadEntry, ...] = Field(min_length=1)
    max_tokens: int = Field(ge=4, le=8192)
    base: Base
    metrics: dict[str, Any]
    versions: dict[str, str]
    created_at: datetime
    files: dict[FileName, Sha256]
    method: str
    seed: int
    recipe: str
    precision: Precision = Field(default="fp32", description="in which the graph holds its weights")
    code: Code | None = Field(default=None, description="what made it; releases of 0.1.0 do not say")
    parent: Parent | None = Field(default=None, description="the release it was made from or is to replace")

    @model_validator(mode="before")
    @classmethod
    def _made_by_0_1_0(cls, content: Any) -> Any:
        """A manifest without heads says at its top what its only head is."""
        if not isinstance(content, dict) or "heads" in content:
            return content
        head = {name: content[name] for name in ("task", "labels", "temperature", "data") if name in content}
        metrics = content.get("metrics")
        dev = {"dev": metrics["dev"]} if isinstance(metrics, dict) and "dev" in metrics else {}
        return content | {"heads": [head | {"metrics": dev}]}

    @field_validator("heads")
    @classmethod
    def _one_head_a_task(cls, heads: tuple[HeadEntry, ...]) -> tuple[HeadEntry, ...]:
        if len({head.task for head in heads}) < len(heads):
            raise ValueError("two heads of one task")
        return heads

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks it serves, in the order of its heads."""
        return tuple(head.task for head in self.heads)

    def head(self, task: str) -> HeadEntry:
        """The head of one of its tasks."""
        return self.heads[self.tasks.index(task)]


def home() -> Path:
    """Where releases live: $STREAMGAUGE_HOME, or ~/.cache/streamgauge."""
    return Path(os.environ.get("STREAMGAUGE_HOME") or Path.home() / ".cache" / "streamgauge")


def release_id(
    tasks: Sequence[str], created_at: datetime, files: Mapping[str, str], data_sha256s: Sequence[str]
) -> str:
    """Such as `risk-20261122-1a2b3c4d`: its tasks, the day, and a hash over the files and the training data."""
    content = "\n".join([*(f"{name} {files[name]}" for name in sorted(files)), *data_sha256s])
    return f"{'-'.join(tasks)}-{created_at:%Y%m%d}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file. Raises IntegrityError when it is missing or larger than MAX_FILE_BYTES."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise IntegrityError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read: {error.strerror}") from error


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json`: indented, so that a person can read it."""
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def as_parent(directory: Path) -> Parent:
    """A release as the parent of the next. Raises IntegrityError when there is no release."""
    return Parent(release=read_manifest(directory).release, sha256=file_sha256(directory / MANIFEST))


def read_manifest(directory: Path) -> Manifest:
    """Read a release's manifest. Raises IntegrityError when it is missing or malformed."""
    path = directory / MANIFEST
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read: {error.strerror}; is {directory} a release?") from error
    return parsed(Manifest, path, content, MAX_MANIFEST_BYTES)


def parsed(kind: type[M], path: Path, content: bytes, max_bytes: int) -> M:
    """A release's JSON file, validated. Raises IntegrityError naming the file and its first bad field."""
    if len(content) > max_bytes:
        raise IntegrityError(f"{path}: larger than {max_bytes} bytes")
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(file)"
        raise IntegrityError(f"{path}: {field}: {first['msg']}") from error


def verify(directory: Path) -> Manifest:
    """Check every file of a release against its manifest's hash, and that its graphs read nothing outside of it.

    Raises IntegrityError naming the first file that is missing, changed or not listed though a release needs it, and
    for a graph whose weights are elsewhere (any file would be read, were it asked for): only those of the others may be
    in model.onnx.
    """
    manifest = read_manifest(directory)
    for name in (MODEL, TOKENIZER):
        if name not in manifest.files:
            raise IntegrityError(f"{directory / MANIFEST}: files: {name} is not listed")
    for name, expected in manifest.files.items():
        found = file_sha256(directory / name)
        if found != expected:
            raise IntegrityError(
                f"{directory / name}: is not the file this release was made with (sha256 {found[:12]}..., the manifest"
                f" says {expected[:12]}...); train the release again or restore the file"
            )
    for name in manifest.files:
        if name.endswith(GRAPH_SUFFIX):
            refuse_foreign_tensors(directory / name, allowed=None if name == MODEL else MODEL)
    return manifest


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A hidden directory in `folder` to build a release in, gone at the end unless it was published."""
    folder.mkdir(parents=True, exist_ok=True)
    tmp_dir = Path(tempfile.mkdtemp(prefix=".release-", dir=folder))
    try:
        yield tmp_dir
    finally:
        shutil.rmtree(tmp_dir, ignore_errors=True)


def publish(tmp_dir: Path, dest: Path) -> Path:
    """Make a finished directory visible as the release `dest`, by one rename on the same file system.

    The files and both directories are flushed to disk around it, so after a crash `dest` is whole or absent.
    Publishing what is there already changes nothing. Raises ReleaseExists when `dest` holds anything else.
    """
    manifest = verify(tmp_dir)
    for path in (*tmp_dir.iterdir(), tmp_dir):
        flush(path)
    dest.parent.mkdir(parents=True, exist_ok=True)
    tmp_dir.chmod(0o755)  # mkdtemp makes it the owner's alone; a worker may run as another user
    try:
        tmp_dir.rename(dest)  # onto an empty directory too, but never onto a full one
    except OSError as error:
        if dest.is_dir() and (dest / MANIFEST).is_file() and read_manifest(dest).files == manifest.files:
            return dest
        raise ReleaseExists(f"{dest}: cannot become a release: {error.strerror}; choose another directory") from error
    flush(dest.parent)
    return dest


def find_release(task: str, ref: str | None = None) -> Path:
    """The directory of a release: None is the task's newest, else a release id, a directory, or `models:/TASK@ALIAS`.

    One in the model registry is fetched and verified. A release of several tasks is found for each of them, whichever
    folder it is in. With None, a release that was trained goes before the starter model, however old it is.
    Raises ReleaseNotFound saying what there is and which command makes one, and what `pulling.pulled` raises.
    """
    if ref is not None and is_reference(ref):
        from models.pulling import pulled  # which needs this module

        return _of_task(task, pulled(ref), ref)
    if ref is None:
        for room in ROOMS:
            if found := _releases(room, task):
                return max(found, key=lambda item: (item[1].created_at, item[1].release))[0]
        raise ReleaseNotFound(_not_found(task, f"task {task!r} has no release yet"))
    if os.sep in ref or (Path(ref) / MANIFEST).is_file():
        return _of_task(task, Path(ref), ref)
    for directory, manifest in _all(task):
        if manifest.release == ref:
            return directory
    raise ReleaseNotFound(_not_found(task, f"task {task!r} has no release {ref!r}, and it is no release directory"))


def _of_task(task: str, directory: Path, ref: str) -> Path:
    manifest = read_manifest(directory)
    if task not in manifest.tasks:
        its = " and ".join(map(repr, manifest.tasks))
        raise ReleaseNotFound(f"{ref}: a release of task {its}, not of {task!r}")
    return directory


def _all(task: str) -> list[tuple[Path, Manifest]]:
    return [found for room in ROOMS for found in _releases(room, task)]


def _releases(room: str, task: str) -> list[tuple[Path, Manifest]]:
    found = []
    for directory in sorted((home() / room).glob("*/*")):
        if directory.name.startswith(".") or not directory.is_dir():
            continue
        try:
            manifest = read_manifest(directory)
        except IntegrityError as error:
            log.warning("not a release, left out: %s", error)
            continue
        if task in manifest.tasks:
            found.append((directory, manifest))
    return found


def _not_found(task: str, problem: str) -> str:
    present = ", ".join(manifest.release for _, manifest in _all(task)) or "none"
    # A task name is safe to print into a command only when it is one.
    name = task if re.fullmatch(r"[\w-]+", task) else "TASK"
    return f"{problem} (present: {present}); make one with: streamgauge train {name} --data FILE.jsonl"
