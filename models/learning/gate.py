"""The gate before a candidate may follow the champion: both as served, on the same texts, check by check.

    artefact      the candidate's files are those of its manifest, and it can be run here
    parity        it gives the scores its training gave (its golden set), on the runtime that is to serve it
    labels        it still knows every label of the champion
    hold-out      not worse than the champion by the margin in macro-F1: the low end of a paired bootstrap interval;
                  and not so far below the best champion there was, or many small losses would add up
    recent        better on recent labels, which it did not learn from: exact McNemar
    calibration   its scores mean what they say, about as well as the champion's
    latency       about as fast, alone and in batches
    parts         in no part of the hold-out (label, length, source, out of scope) really worse: exact McNemar, Holm
    robustness    the same for the hold-out with typing errors and other changes that keep the label

Which error each test may make is in `GateSettings`, and how often they make it in the tests of `paired`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from models.classifier import Classifier
from models.datasets import Example
from models.errors import DeviceUnavailable, IntegrityError, RuntimeUnavailable
from models.evaluation import is_stranger
from models.learning.checks import (
    calibration_check,
    holdout_check,
    labels_check,
    latency_check,
    parity_check,
    parts_check,
    recent_check,
)
from models.learning.latency import paces
from models.learning.opinions import text_key
from models.learning.parts import changed_of, judged_parts, parts_of
from models.learning.sides import Sides, sample_of, seen_of, sides_of
from models.learning.verdict import Check, Evidence, GateSettings, Sample, Verdict
from models.releases import as_parent
from models.runtimes import Device
from models.tasks import Task

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


@dataclass(frozen=True)
class Exam:
    """What both are graded on; none of it was learned from.

    `facets` give each hold-out text a value of a further kind, such as its source; length and label are there anyway.
    `best_before` is the highest macro-F1 a champion ever had on this hold-out, if one was graded before.
    """

    holdout: Sequence[Example]
    recent: Sequence[Example]
    facets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    best_before: float | None = None


class Outcome(NamedTuple):
    """The verdict, and what it rests on: None where the candidate could not be run."""

    verdict: Verdict
    evidence: Evidence | None


@dataclass(frozen=True)
class Opponents:
    """The two releases of one task, and where they run."""

    task: Task
    champion: Path
    candidate: Path
    device: Device = "auto"
    runtime: str = "auto"

    def load(self, directory: Path) -> Classifier:
        """One of them, as a worker would load it."""
        return Classifier.load(directory, self.task, self.device, self.runtime)


def gate(
    opponents: Opponents, exam: Exam, settings: GateSettings, run: str, now: datetime, progress: Progress
) -> Outcome:
    """Whether the candidate may follow the champion; what is wrong with the candidate is a refusal, never an error.

    Raises BadDataset for an empty hold-out or no recent labels, and what loading the champion raises.
    """
    progress("load the champion", 0, 4)
    champion = opponents.load(opponents.champion)
    progress("load the candidate", 1, 4)
    try:
        candidate = opponents.load(opponents.candidate)
    except (IntegrityError, RuntimeUnavailable, DeviceUnavailable) as error:
        broken = Check(name="artefact", passed=False, reason=str(error))
        return Outcome(_verdict(opponents, settings, run, now, [broken]), None)
    progress("classify the hold-out", 2, 4)
    holdout = sides_of(champion, candidate, exam.holdout)
    progress("classify the recent texts", 3, 4)
    recent = sides_of(champion, candidate, distinct(exam.recent))
    parts = judged_parts(parts_of(holdout, _facets(holdout, exam)), settings)
    changed = judged_parts(changed_of(champion, candidate, holdout, settings, progress), settings)
    checks = [
        Check(name="artefact", passed=True, reason=f"{candidate.release} is whole, on {candidate.model.runtime}"),
        parity_check(candidate, opponents.candidate),
        labels_check(champion.labels, candidate.labels),
        holdout_check(holdout, exam.best_before, settings),
        recent_check(recent, settings),
        calibration_check(holdout, settings),
        latency_check(*paces(champion, candidate, [one.text for one in holdout.examples], progress), settings),
        parts_check("parts", parts),
        parts_check("robustness", changed),
    ]
    seen = Evidence(labels=holdout.labels, holdout=seen_of(holdout), recent=seen_of(recent), parts=(*parts, *changed))
    samples = sample_of(holdout), sample_of(recent)
    return Outcome(_verdict(opponents, settings, run, now, checks, *samples), seen)


def distinct(examples: Sequence[Example]) -> list[Example]:
    """The first of each text: copies are no evidence of their own."""
    return [*{text_key(one.text): one for one in reversed(examples)}.values()][::-1]


def _facets(sides: Sides, exam: Exam) -> dict[str, list[str]]:
    """Of the texts that are graded by label, without strangers."""
    inside = [not is_stranger(sides.labels, one) for one in exam.holdout]
    return {
        by: [value for value, graded in zip(values, inside, strict=True) if graded]
        for by, values in exam.facets.items()
    }


def _verdict(
    opponents: Opponents,
    settings: GateSettings,
    run: str,
    now: datetime,
    checks: Sequence[Check],
    holdout: Sample | None = None,
    recent: Sample | None = None,
) -> Verdict:
    return Verdict(
        run=run,
        task=opponents.task.name,
        made_at=now,
        champion=as_parent(opponents.champion),
        candidate=as_parent(opponents.candidate),
        settings=settings,
        holdout=holdout,
        recent=recent,
        checks=tuple(checks),
    )
