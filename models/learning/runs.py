"""A run of retraining on disk: every step leaves one file, whole or absent, and what is there is not done again.

    home()/learning/<task>/runs/<id>/{plan.json, curation.json, candidate/, verdict.json, ..., outcome.json}

A run's id follows from what it is made of, so the same feedback, champion and knobs are the same run: one that was
killed goes on when it is begun again, and one that is over is not repeated. A candidate lies in its run's folder, not
among the releases, so that no worker finds it before somebody promotes it.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from models.durable import replace_file
from models.errors import IntegrityError
from models.learning.approval import state_of
from models.learning.successor import UNFINISHED
from models.lineage import Parent
from models.releases import MAX_MANIFEST_BYTES, parsed

PLAN, OUTCOME, CANDIDATE = "plan.json", "outcome.json", "candidate"

T = TypeVar("T")


class Plan(BaseModel):
    """All that a run follows from. `version` of the opinions, `data_sha256` of the old data."""

    model_config = ConfigDict(frozen=True)

    task: str
    champion: Parent
    version: int = Field(ge=1)
    opinions_sha256: str
    data_sha256: str
    knobs: dict[str, Any]

    @property
    def id(self) -> str:
        """Such as `00000012-1a2b3c4d`: the version of the opinions, and a hash over all."""
        content = json.dumps(self.model_dump(), sort_keys=True)
        return f"{self.version:08d}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


End = Literal["challenger", "waiting", "rejected", "refused", "nothing", "failed"]


class Outcome(BaseModel):
    """How a run ended: a challenger, a candidate that waits for a person, one that was refused, or none at all."""

    model_config = ConfigDict(frozen=True)

    end: End
    reasons: tuple[str, ...] = ()
    release: str | None = None


class Run:
    """The folder of one run."""

    def __init__(self, plan: Plan, runs: Path) -> None:
        """Begin it below `runs`, or find it there. Raises IntegrityError when another one has its id."""
        self.plan = plan
        self.folder = runs / plan.id
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.once(Plan, PLAN, lambda: plan) != plan:
            raise IntegrityError(f"{self.folder / PLAN}: is not this run's: remove the folder")

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it has not."""
        return read_outcome(self.folder)

    @property
    def candidate(self) -> Path:
        """Where its release lies once it is made."""
        return self.folder / CANDIDATE

    def once(self, kind: type[T], name: str, make: Callable[[], T]) -> T:
        """What a step gave, made now unless it was before. Raises IntegrityError for a file that is damaged."""
        path, adapter = self.folder / name, TypeAdapter(kind)
        if not path.is_file():
            replace_file(path, adapter.dump_json(make(), indent=2))
        try:
            return adapter.validate_json(path.read_bytes())
        except ValidationError as error:
            raise IntegrityError(f"{path}: {error.errors()[0]['msg']}: remove it, it is made again") from error

    def ends(self, outcome: Outcome) -> Outcome:
        """The run is over."""
        replace_file(self.folder / OUTCOME, outcome.model_dump_json(indent=2).encode())
        return outcome


def read_outcome(folder: Path) -> Outcome | None:
    """How the run in a folder ended; None when it has not, or is none."""
    path = folder / OUTCOME
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return parsed(Outcome, path, file.read(MAX_MANIFEST_BYTES + 1), MAX_MANIFEST_BYTES)


def begun(plan: Plan, runs: Path) -> Run:
    """The run of a plan; an open one that differs in the opinions alone is finished first."""
    for folder, before in reversed(plans_of(runs).items()):
        same = {"version": plan.version, "opinions_sha256": plan.opinions_sha256}
        if is_open(folder) and before.model_copy(update=same) == plan:
            return Run(before, runs)
    return Run(plan, runs)


def is_open(folder: Path) -> bool:
    """Whether a run was cut off, or waited for a person who has decided."""
    outcome = read_outcome(folder)
    return outcome is None or (outcome.end == "waiting" and state_of(folder) != "waiting")


def last_version(runs: Path) -> int | None:
    """The version of the opinions that the newest run to come to its end was made of."""
    ended = [plan.version for folder, plan in plans_of(runs).items() if read_outcome(folder) is not None]
    return max(ended, default=None)


def plans_of(runs: Path) -> dict[Path, Plan]:
    """Of every run its plan, the oldest first."""
    paths = sorted(runs.glob(f"*/{PLAN}"))
    return {path.parent: parsed(Plan, path, path.read_bytes(), MAX_MANIFEST_BYTES) for path in paths}


def forget_candidates(runs: Path, but: Path) -> None:
    """Delete the releases of runs whose candidate came to nothing, and what is left of those that were cut off."""
    for folder in runs.glob("*"):
        outcome = read_outcome(folder)
        if folder != but and (outcome is None or outcome.end in ("refused", "rejected", "failed")):
            shutil.rmtree(folder / CANDIDATE, ignore_errors=True)
            shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
