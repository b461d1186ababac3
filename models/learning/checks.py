"""What the gate asks of a candidate, one check each: a few figures, whether they will do, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from models.calibration import expected_calibration_error
from models.classifier import Classifier
from models.golden import read_golden
from models.learning.latency import Pace
from models.learning.paired import fewest_gained, macro_f1_gain, mcnemar
from models.learning.sides import Sides, sample_of
from models.learning.verdict import Check, GateSettings, Part
from models.releases import read_manifest
from models.runtimes import parity
from models.runtimes.candidates import tolerance_of

NO_DIFFERENCE_MS = 0.1


def parity_check(candidate: Classifier, directory: Path) -> Check:
    """Its golden set on the runtime that serves it; a choice that was remembered is looked at again."""
    golden = read_golden(directory)
    if golden is None:
        return Check(name="parity", passed=False, reason="it has no golden set to compare with; train it again")
    precision = read_manifest(directory).precision
    tolerance, labels = parity.allowance(tolerance_of(candidate.model.runtime), precision)
    logits = np.concatenate([candidate.model.logits([window]) for window in golden.windows])
    heads = [head.columns for head in candidate.model.heads.values()]
    wrong = parity.problem(logits, golden.logits, tolerance, heads, labels)
    furthest = max(parity.distance(logits, golden.logits, columns).furthest for columns in heads)
    reason = wrong or f"scores at most {furthest:.2g} from those of training, allowed {tolerance:g}"
    return Check(name="parity", passed=wrong is None, reason=reason, figures={"furthest": furthest})


def labels_check(before: Sequence[str], after: Sequence[str]) -> Check:
    """A label that is forgotten is never given again."""
    lost, new = sorted({*before} - {*after}), sorted({*after} - {*before})
    told = f"{len(after)} labels" + (f", new: {', '.join(new)}" if new else "")
    reason = f"it does not know {', '.join(map(repr, lost))} any more" if lost else told
    return Check(name="labels", passed=not lost, reason=reason, figures={"lost": len(lost), "new": len(new)})


def holdout_check(sides: Sides, best_before: float | None, settings: GateSettings) -> Check:
    """Not inferior on the frozen hold-out."""
    gain = macro_f1_gain(
        sides.targets, sides.before.chosen, sides.after.chosen, 1 - settings.holdout_error, seed=settings.seed
    )
    reached = sample_of(sides).macro_f1_after
    figures = {"gain": gain.estimate, "low": gain.low, "high": gain.high, "macro_f1": reached}
    told = f"macro-F1 {_points(gain.estimate)} points, between {_points(gain.low)} and {_points(gain.high)}"
    allowed = f"allowed {_points(-settings.margin)}"
    if not gain.low > -settings.margin:
        reason = f"{told} on {len(sides.examples)} texts: it may be worse than allowed ({allowed})"
        return Check(name="hold-out", passed=False, reason=reason, figures=figures)
    if best_before is not None and reached < best_before - settings.margin:
        reason = f"macro-F1 {reached:.3f}, while the best champion had {best_before:.3f} on the same texts ({allowed})"
        return Check(name="hold-out", passed=False, reason=reason, figures=figures)
    return Check(name="hold-out", passed=True, reason=f"{told}; {allowed}", figures=figures)


def recent_check(sides: Sides, settings: GateSettings) -> Check:
    """Better on recent labels."""
    gained = int((sides.right_after & ~sides.right_before).sum())
    lost = int((sides.right_before & ~sides.right_after).sum())
    p = mcnemar(gained, lost)
    figures = {"gained": gained, "lost": lost, "p": p}
    told = f"of {len(sides.examples)} texts {gained} gained and {lost} lost (p = {p:.2g})"
    if p <= settings.better_error:
        return Check(name="recent", passed=True, reason=told, figures=figures)
    needed = fewest_gained(lost, settings.better_error)
    return Check(name="recent", passed=False, reason=f"{told}: {needed} gained would show it better", figures=figures)


def calibration_check(sides: Sides, settings: GateSettings) -> Check:
    """The expected calibration error on the hold-out."""
    before = expected_calibration_error(sides.before.scores, sides.right_before)
    after = expected_calibration_error(sides.after.scores, sides.right_after)
    told = f"ECE {after:.3f}, the champion's {before:.3f}; allowed {settings.ece_margin:g} more"
    passed = after <= before + settings.ece_margin
    return Check(name="calibration", passed=passed, reason=told, figures={"before": before, "after": after})


def latency_check(before: Pace, after: Pace, settings: GateSettings) -> Check:
    """Each of the three figures; what takes NO_DIFFERENCE_MS more takes no longer for anybody."""
    slower = {
        name: (old, new)
        for name, old, new in zip(Pace._fields, before, after, strict=True)
        if new > max(settings.latency_ratio * old, old + NO_DIFFERENCE_MS)
    }
    figures = {f"{name}_before": value for name, value in before._asdict().items()}
    figures |= {f"{name}_after": value for name, value in after._asdict().items()}
    told = f"{after.p99_ms:.2f} ms (p99), the champion {before.p99_ms:.2f} ms"
    if slower:
        name, (old, new) = next(iter(slower.items()))
        told = (
            f"{name.removesuffix('_ms')} {new:.2f} ms, the champion {old:.2f} ms; allowed x{settings.latency_ratio:g}"
        )
    return Check(name="latency", passed=not slower, reason=told, figures=figures)


def parts_check(name: Literal["parts", "robustness"], parts: Sequence[Part]) -> Check:
    """No part, or no kind of change (`name` is "robustness"), is worse than allowed."""
    refused = [part for part in parts if part.refused]
    figures = {"parts": len(parts), "refused": len(refused)}
    if not parts:
        return Check(name=name, passed=True, reason="not asked for", figures=figures)
    shown = refused or [max(parts, key=lambda part: part.before - part.after)]
    told = "; ".join(
        f"{part.by} {part.value}: accuracy {part.after:.3f} of {part.n}, the champion {part.before:.3f}"
        for part in shown[:5]
    )
    more = f"; and {len(refused) - 5} parts more" if len(refused) > 5 else ""
    reason = f"worse in {told}{more}" if refused else f"in none of {len(parts)} worse; most is lost in {told}"
    return Check(name=name, passed=not refused, reason=reason, figures=figures)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
