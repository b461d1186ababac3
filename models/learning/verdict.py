"""What the gate says of a candidate: its checks with their reasons, and what a person would want to look at."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from models.durable import replace_file
from models.errors import IntegrityError
from models.lineage import Parent, Sha256
from models.releases import parsed

VERDICT, EVIDENCE = "verdict.json", "evidence.json"
MAX_FILE_BYTES = 32 << 20

Name = Literal["artefact", "parity", "labels", "hold-out", "recent", "calibration", "latency", "parts", "robustness"]

M = TypeVar("M", bound=BaseModel)


class Frozen(BaseModel):
    """Never changed once made; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GateSettings(Frozen):
    """What a candidate must show. Shares are of texts, 0..1; errors are the chances to let a wrong one pass."""

    approval: bool = Field(default=False, description="a person must approve what passes")
    margin: float = Field(default=0.02, gt=0, lt=1, description="macro-F1 that it may really be below, on the hold-out")
    holdout_error: float = Field(default=0.025, gt=0, lt=0.5, description="to pass though it is worse by the margin")
    better_error: float = Field(default=0.05, gt=0, lt=0.5, description="to pass though not better on recent labels")
    ece_margin: float = Field(default=0.03, ge=0, lt=1, description="calibration error it may have more")
    latency_ratio: float = Field(default=1.25, ge=1, description="times the champion's latency it may take")
    part_margin: float = Field(default=0.03, ge=0, lt=1, description="accuracy it may have less in a part of the data")
    part_error: float = Field(default=0.05, gt=0, lt=0.5, description="to refuse though no part is worse")
    part_floor: float | None = Field(default=None, ge=0, le=1, description="accuracy it must have in every part")
    fewest_in_part: int = Field(default=30, ge=1, description="texts a part needs for its floor to hold")
    robustness_texts: int = Field(default=500, ge=0, description="hold-out texts to change; 0 leaves it out")
    seed: int = 7


class Check(Frozen):
    """One thing the gate looked at; `figures` are what the reason speaks of."""

    name: Name
    passed: bool
    reason: str
    figures: dict[str, float] = {}


class Sample(Frozen):
    """Labelled texts both releases were graded on: macro-F1 over the labels they carry, and accuracy."""

    n: int
    sha256: Sha256
    macro_f1_before: float
    macro_f1_after: float
    accuracy_before: float
    accuracy_after: float


class Verdict(Frozen):
    """Whether a candidate may follow the champion, and why; both are pinned by the hash of their manifests."""

    run: str
    task: str
    made_at: datetime
    champion: Parent
    candidate: Parent
    settings: GateSettings
    holdout: Sample | None = Field(default=None, description="None: the candidate could not be run at all")
    recent: Sample | None = None
    checks: tuple[Check, ...] = Field(min_length=1)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def refusals(self) -> list[str]:
        """Why it did not."""
        return [f"{check.name}: {check.reason}" for check in self.checks if not check.passed]


class Part(Frozen):
    """One part of the hold-out, or all of it changed: accuracy before and after, and the chance to see so much lost."""

    by: str
    value: str
    n: int
    before: float
    after: float
    gained: int
    lost: int
    p_worse: float
    refused: bool


class Confused(Frozen):
    """How often a true label got a given one."""

    true: str
    given: str
    times: int


class Changed(Frozen):
    """A text that only one of the two has right."""

    text: str
    label: str
    before: str
    after: str
    score: float = Field(description="the candidate's, of its answer")


class Seen(Frozen):
    """Of one sample: all answers of champion and candidate by true label, and texts that changed sides."""

    before: tuple[Confused, ...]
    after: tuple[Confused, ...]
    gained: tuple[Changed, ...]
    lost: tuple[Changed, ...]


class Evidence(Frozen):
    """What the gate saw, for the page of the run."""

    labels: tuple[str, ...]
    holdout: Seen
    recent: Seen
    parts: tuple[Part, ...]


def read_verdict(folder: Path) -> Verdict:
    """The verdict of a run. Raises IntegrityError when it is missing or malformed."""
    return _read(Verdict, folder / VERDICT)


def read_evidence(folder: Path) -> Evidence | None:
    """What the gate of a run saw; None when the candidate could not be run."""
    return _read(Evidence, folder / EVIDENCE) if (folder / EVIDENCE).exists() else None


def write_verdict(folder: Path, verdict: Verdict, evidence: Evidence | None) -> None:
    """Keep both in a run's folder; the verdict last, so that where it is, all is."""
    folder.mkdir(parents=True, exist_ok=True)
    if evidence is not None:
        replace_file(folder / EVIDENCE, _json(evidence))
    replace_file(folder / VERDICT, _json(verdict))


def _json(content: BaseModel) -> bytes:
    return (content.model_dump_json(indent=1) + "\n").encode("utf-8", "backslashreplace")


def _read(kind: type[M], path: Path) -> M:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise IntegrityError(
            f"{path}: cannot be read: {error.strerror}; is {path.parent} a run of the gate?"
        ) from error
    return parsed(kind, path, content, MAX_FILE_BYTES)
