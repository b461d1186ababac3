"""A person's word on what the gate let pass, and where a run stands with it.

    home()/learning/<task>/runs/<id>/{verdict.json, evidence.json, approval.json, report.html, ...}

The first decision stands. It names the candidate by the hash of its manifest: nothing else can be promoted by it.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from models.durable import held, replace_file
from models.errors import BadRun, IntegrityError
from models.learning.verdict import VERDICT, Frozen, Verdict, read_verdict
from models.lineage import Parent
from models.releases import MAX_MANIFEST_BYTES, home, parsed
from models.tasks import NAME

APPROVAL = "approval.json"
MAX_NOTE_CHARS = 2000
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

State = Literal["refused", "waiting", "passed", "approved", "rejected"]
FOLLOWS: frozenset[State] = frozenset({"passed", "approved"})  # the candidate may follow the champion


class Approval(Frozen):
    """What a person decided, and on which release."""

    run: str
    candidate: Parent
    approved: bool
    by: str = Field(min_length=1, max_length=200)
    at: datetime
    note: str = Field(default="", max_length=MAX_NOTE_CHARS)


def runs_folder(task: str) -> Path:
    """Where a task's runs are, whether there are any or not."""
    return home() / "learning" / task / "runs"


def runs_of(task: str) -> list[Path]:
    """The folders of a task's runs that have a verdict, oldest first."""
    folders = [path.parent for path in runs_folder(task).glob(f"*/{VERDICT}")]
    return sorted(folders, key=lambda folder: (read_verdict(folder).made_at, folder.name))


def find_run(run: str, task: str | None = None) -> Path:
    """The folder of a run by its id, of one task or whichever has it. Raises BadRun saying which runs there are."""
    if not _RUN.fullmatch(run) or (task is not None and not NAME.fullmatch(task)):
        raise BadRun(f"{run!r} is no run: letters, digits, `.`, `-` and `_`, 100 at most")
    found = sorted((home() / "learning").glob(f"{task or '*'}/runs/{run}/{VERDICT}"))
    if len(found) == 1:
        return found[0].parent
    if found:
        tasks = ", ".join(path.parents[2].name for path in found)
        raise BadRun(f"{run}: there is a run of this name for each of {tasks}; say which with --task")
    there = sorted({path.parent.name for path in (home() / "learning").glob(f"{task or '*'}/runs/*/{VERDICT}")})
    raise BadRun(f"{run}: no run with a verdict has this name; there are: {', '.join(there) or 'none'}")


def read_approval(folder: Path) -> Approval | None:
    """What a person decided on the run in a folder, None when nobody has. Raises IntegrityError if malformed."""
    path = folder / APPROVAL
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return parsed(Approval, path, content, MAX_MANIFEST_BYTES)


def state_of(folder: Path) -> State:
    """Where the run in a folder stands. Raises IntegrityError when an approval is of another candidate."""
    verdict, approval = read_verdict(folder), read_approval(folder)
    if approval is not None and approval.candidate != verdict.candidate:
        raise IntegrityError(
            f"{folder / APPROVAL}: is of the release {approval.candidate.release} as it was, the verdict is not"
        )
    if not verdict.passed:
        return "refused"
    if approval is not None:
        return "approved" if approval.approved else "rejected"
    return "waiting" if verdict.settings.approval else "passed"


def decide(folder: Path, approved: bool, by: str, now: datetime, note: str = "") -> Approval:
    """Write down what a person decides on a run.

    Raises BadRun for a run that the gate refused, or on which somebody has decided already.
    """
    with held(folder / ".approval.lock", "an approval"):
        verdict = read_verdict(folder)
        _require_open(verdict, read_approval(folder))
        approval = Approval(run=verdict.run, candidate=verdict.candidate, approved=approved, by=by, at=now, note=note)
        replace_file(folder / APPROVAL, (approval.model_dump_json(indent=2) + "\n").encode("utf-8", "backslashreplace"))
    return approval


def _require_open(verdict: Verdict, before: Approval | None) -> None:
    if not verdict.passed:
        raise BadRun(f"{verdict.run}: the gate refused it ({verdict.refusals[0]}); nobody can approve that")
    if before is not None:
        word = "approved" if before.approved else "rejected"
        raise BadRun(f"{verdict.run}: {before.by} {word} it at {before.at:%Y-%m-%d %H:%M}; a decision stands")


def best_before(task: str, holdout_sha256: str) -> float | None:
    """The highest macro-F1 that a champion had on this very hold-out, in the verdicts there are."""
    samples = [read_verdict(folder).holdout for folder in runs_of(task)]
    return max((one.macro_f1_before for one in samples if one and one.sha256 == holdout_sha256), default=None)
