"""A champion's successor: trained from where the champion is, and published where no worker finds it.

This imports the training half, inside its functions.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.curves import Curves, Together
from models.datasets import Example
from models.errors import TRAIN_EXTRA, MissingExtra
from models.learning.curation import Curated
from models.learning.rehearsal import lesson_of
from models.recipes import knobs_of
from models.releases import Manifest, as_parent, read_manifest
from models.tasks import Task
from models.teachers import Progress
from models.train_settings import TrainSettings, settings_of

RECIPE = "continue"
KEPT_KNOBS = (
    "long_texts",
    "class_weight_power",
    "focal_gamma",
    "label_smoothing",
)  # what its texts and labels are like

HELD = {"distill_weight": 0.0}  # rehearsal alone forgets less than with the champion's say: tests/benchmarks/RESULTS.md

UNFINISHED = "unfinished"  # beside the release, while it is trained


def settings_after(champion: Path, given: Mapping[str, Any]) -> TrainSettings:
    """How to train a champion's successor: by the recipe `continue`, with what the champion's data asked for.

    Old texts are learned from their labels alone, unless `distill_weight` is given.
    `given` are the knobs set by hand; they win. Raises BadKnob.
    """
    manifest = read_manifest(champion)
    its = manifest.metrics.get("training", {}).get("knobs", {})
    kept = {name: its[name] for name in KEPT_KNOBS if name in its}
    start = {"start": str(champion), "max_tokens": manifest.max_tokens}
    return settings_of({**knobs_of(RECIPE), **HELD, **kept, **start, **given}, "retrain.knobs")


def successor(
    task: Task,
    champion: Path,
    old: Sequence[Example],
    new: Sequence[Curated],
    settings: TrainSettings,
    out: Path,
    progress: Progress,
    curves: Curves | None = None,
) -> Manifest:
    """The release `out`, trained unless it is there; what was killed goes on where it was.

    It learns `new` texts among the `old` ones. Raises what `lesson_of`, `train` and `make_release` raise, and
    MissingExtra.
    """
    if out.is_dir():
        return read_manifest(out)
    try:
        from models.export import make_release
        from models.training import train
    except ImportError as error:
        raise MissingExtra(f"retraining needs the train extra: {TRAIN_EXTRA} ({error})") from error
    for left in out.parent.glob(".release-*"):  # of a run that was killed while it exported
        shutil.rmtree(left)
    name = f"{len(new)} new texts among {len(old)} old ones"
    lesson = lesson_of(task, champion, old, new, name, progress, asks_champion=settings.distill_weight > 0)
    checkpoint = train([lesson], settings, progress, curves or Together(), out.parent / UNFINISHED)
    knobs = settings.model_dump(exclude_defaults=True, exclude={"start"})
    training = {"why": "the successor of a champion", "knobs": knobs, "new": len(new), "rehearsed": len(old)}
    checkpoint = replace(checkpoint, notes={**checkpoint.notes, "training": training})
    make_release(checkpoint, RECIPE, out, progress, as_parent(champion))
    shutil.rmtree(out.parent / UNFINISHED, ignore_errors=True)
    return read_manifest(out)
