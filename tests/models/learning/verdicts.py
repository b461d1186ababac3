"""Verdicts and evidence, made up."""

from __future__ import annotations

from datetime import UTC, datetime

from models.learning.verdict import Changed, Check, Confused, Evidence, GateSettings, Part, Sample, Seen, Verdict
from models.lineage import Parent

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def made_verdict(
    run: str = "run-1",
    *,
    passed: bool = True,
    approval: bool = False,
    candidate: str = "tone-2",
    macro_f1_before: float = 0.9,
    holdout_sha256: str = "a" * 64,
) -> Verdict:
    sample = Sample(
        n=400, sha256=holdout_sha256, macro_f1_before=macro_f1_before, macro_f1_after=0.91, accuracy_before=0.92,
        accuracy_after=0.93,
    )  # fmt: skip
    recent = "of 32 texts 16 gained and 0 lost (p = 1.5e-05)"
    return Verdict(
        run=run,
        task="tone",
        made_at=NOW,
        champion=Parent(release="tone-1", sha256="1" * 64),
        candidate=Parent(release=candidate, sha256=candidate[-1] * 64),
        settings=GateSettings(approval=approval),
        holdout=sample,
        recent=sample.model_copy(update={"n": 32, "sha256": "c" * 64}),
        checks=(
            Check(name="artefact", passed=True, reason="it is whole"),
            Check(name="recent", passed=passed, reason=recent, figures={"gained": 16, "lost": 0, "p": 1.5e-5}),
        ),
    )


def made_evidence(labels: tuple[str, ...] = ("bad", "good"), text: str = "to the moon") -> Evidence:
    first, last = labels[0], labels[-1]
    right = (Confused(true=first, given=first, times=200), Confused(true=last, given=last, times=180))
    wrong = Confused(true=last, given=first, times=20)
    changed = Changed(text=text, label=last, before=first, after=last, score=0.875)
    seen = Seen(before=(*right, wrong), after=right, gained=(changed,), lost=())
    part = Part(by="label", value=last, n=200, before=0.9, after=0.8125, gained=0, lost=20, p_worse=1e-6, refused=True)
    fine = part.model_copy(update={"value": first, "before": 0.9, "after": 0.95, "p_worse": 0.5, "refused": False})
    return Evidence(labels=labels, holdout=seen, recent=seen, parts=(part, fine))
