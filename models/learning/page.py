"""The page of a run: what it was made of, how training went, what the gate found, who decided. One HTML file.

It is made of the files in the run's folder alone, and made anew when one is added: an approval, the live comparison.
Texts, labels and names come from people and may be hostile: see `models.report`. Needs the extra `train`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.drawings import confusion_picture, curve_picture, evidence_picture, most_confused
from models.durable import replace_file
from models.learning.approval import Approval, State, read_approval, state_of
from models.learning.run_files import DataPart, curves_of, read_data, read_live
from models.learning.sequential import Standing
from models.learning.verdict import Confused, Evidence, Sample, Seen, Verdict, read_evidence, read_verdict
from models.report import FILE, beginning, embedded, environment, printable

TEMPLATE = "learning/run.html"
MOST_CURVES = 6
MOST_LABELS_TOLD = 12  # of a part of the data

WORDS: Mapping[State, tuple[str, str]] = {
    "refused": ("Refused by the gate", "no"),
    "waiting": ("Passed the gate, waits for a person", "wait"),
    "passed": ("Passed the gate", "yes"),
    "approved": ("Passed the gate, approved", "yes"),
    "rejected": ("Passed the gate, rejected", "no"),
}


def write_page(folder: Path, now: datetime) -> Path:
    """Write `report.html` into a run's folder; an earlier one is replaced.

    Raises IntegrityError when the run has no verdict, or a file of it is malformed.
    """
    replace_file(folder / FILE, rendered(folder, now).encode("utf-8", "replace"))
    return folder / FILE


def rendered(folder: Path, now: datetime) -> str:
    """The page; the same files and time give the same page."""
    verdict, evidence, live = read_verdict(folder), read_evidence(folder), read_live(folder)
    made = environment()
    made.filters |= {"day": _day, "labels": _labels_told, "beginning": beginning}
    return made.get_template(TEMPLATE).render(
        verdict=verdict,
        standing=_standing(state_of(folder), verdict, read_approval(folder)),
        figures=_figures(verdict),
        graded_at=_minute(verdict.made_at),
        made_at=_minute(now),
        data=read_data(folder),
        live=live,
        evidence=_evidence(live),
        pictures={"curves": _curves(folder), "live": _live_picture(live)},
        samples=_samples(verdict, evidence),
        parts=[] if evidence is None else evidence.parts,
    )


def _standing(state: State, verdict: Verdict, approval: Approval | None) -> dict[str, Any]:
    word, colour = WORDS[state]
    lines = [*verdict.refusals]
    if state == "waiting":
        lines = [f"streamgauge retrain approve {verdict.run}   or   streamgauge retrain reject {verdict.run}"]
    elif approval is not None:
        lines = [f"{approval.by}, {_minute(approval.at)}", *([approval.note] if approval.note else [])]
    return {"word": word, "colour": colour, "lines": lines}


def _figures(verdict: Verdict) -> list[tuple[str, float, float]]:
    named = (("hold-out", verdict.holdout), ("recent labels", verdict.recent))
    return [(f"macro-F1, {name}", one.macro_f1_before, one.macro_f1_after) for name, one in named if one is not None]


def _curves(folder: Path) -> list[tuple[str, str]]:
    found = sorted(curves_of(folder).items())[:MOST_CURVES]
    return [(name, embedded(curve_picture(points, printable(name)))) for name, points in found]


def _evidence(live: Standing | None) -> list[tuple[float, float]]:
    """The e-values of the last look with what they decide at: that it is better, and that it is worse."""
    if live is None:
        return []
    better, worse = (live.looks[-1].e_better, live.looks[-1].e_worse) if live.looks else (1.0, 1.0)
    return [(better, live.promote_at), (worse, live.rollback_at)]


def _live_picture(live: Standing | None) -> str | None:
    if live is None or not live.looks:
        return None
    counts = [look.n for look in live.looks]
    better, worse = (np.array([getattr(look, name) for look in live.looks]) for name in ("e_better", "e_worse"))
    return embedded(evidence_picture(counts, better, worse, live.promote_at, live.rollback_at))


def _samples(verdict: Verdict, evidence: Evidence | None) -> list[dict[str, Any]]:
    if evidence is None or verdict.holdout is None or verdict.recent is None:
        return []
    return [
        _sample("Hold-out, before and after", verdict.holdout, evidence.holdout, evidence.labels),
        _sample("Recent labels, before and after", verdict.recent, evidence.recent, evidence.labels),
    ]


def _sample(title: str, sample: Sample, seen: Seen, labels: Sequence[str]) -> dict[str, Any]:
    before, after = _counts(seen.before, labels), _counts(seen.after, labels)
    there = np.flatnonzero((before + after).sum(axis=0) + (before + after).sum(axis=1))
    shown = [int(there[place]) for place in most_confused((before + after)[np.ix_(there, there)])]
    names = [printable(label) for label in labels]
    return {
        "title": title,
        "sample": sample,
        "before": embedded(confusion_picture(before, names, shown)),
        "after": embedded(confusion_picture(after, names, shown)),
        "shown": len(shown),
        "left_out": len(there) - len(shown),
        "changed": [("Only the champion had right", seen.lost), ("Only the candidate has right", seen.gained)],
    }


def _counts(confused: Sequence[Confused], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    column = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for one in confused:
        counts[column[one.true], column[one.given]] += one.times
    return counts


def _labels_told(part: DataPart) -> str:
    told = [f"{label} {count}" for label, count in [*part.labels.items()][:MOST_LABELS_TOLD]]
    more = len(part.labels) - len(told)
    return ", ".join(told) + (f", and {more} more labels" if more > 0 else "")


def _day(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d}"


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
