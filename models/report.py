"""An evaluation as one HTML file that needs nothing else: figures, pictures, slices, and the worst mistakes.

Texts and labels come from data and may be hostile: the template escapes them all, pictures are images in which nothing
runs, and the page forbids itself scripts and everything from elsewhere. Needs the extra `train`.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from models.drawings import (
    confusion_counts,
    confusion_picture,
    most_confused,
    reliability_picture,
    risk_picture,
)
from models.evaluation import Evaluation, Judged
from models.robustness import Robustness
from models.slices import Slice

FILE = "report.html"
WORST = 20  # mistakes, and pairs of labels, that are shown
TEXT_CHARS = 600  # of a text that is shown


@dataclass(frozen=True)
class Contents:
    """What a report is made of."""

    found: Evaluation
    judged: Judged
    slices: Sequence[Slice]
    robustness: Robustness | None
    data_name: str
    review_below: float


def write_report(contents: Contents, folder: Path, now: datetime) -> Path:
    """Write `report.html` into a folder, which is made if it is not there; an earlier report is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    path.write_bytes(rendered(contents, now).encode("utf-8", "replace"))  # a text may hold half a surrogate pair
    return path


def rendered(contents: Contents, now: datetime) -> str:
    """The page; the same contents and time give the same page."""
    found, judged = contents.found, contents.judged
    counts = confusion_counts(judged.targets, judged.chosen, len(judged.labels))
    labels = [printable(label) for label in judged.labels]
    shown = len(most_confused(counts))
    return (
        environment()
        .get_template(FILE)
        .render(
            found=found,
            figures=_figures(found),
            data_name=contents.data_name,
            made_at=now.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            pictures=_pictures(contents, counts, labels),
            labels_shown=shown,
            labels_left_out=len(labels) - shown,
            confusions=_confusions(counts, labels),
            per_label=[*found.per_label.items()],
            slices=contents.slices,
            robustness=contents.robustness,
            mistakes=worst_mistakes(judged),
        )
    )


def environment() -> jinja2.Environment:
    """How pages are made of the templates of `models`: everything is escaped, and nothing may be left out."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {"rate": lambda value: f"{value:.3f}", "points": lambda value: f"{100 * value:.1f}"}
    return made


def worst_mistakes(judged: Judged, most: int = WORST) -> list[dict[str, Any]]:
    """The wrong answers with the highest scores, highest first."""
    confidence, chosen = judged.confidence, judged.chosen
    wrong = np.flatnonzero(~judged.correct)
    return [
        {
            "text": beginning(judged.examples[row].text),
            "true": judged.examples[row].label,
            "given": judged.labels[chosen[row]],
            "score": float(confidence[row]),
        }
        for row in wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    ]


def printable(text: str, kept: str = "") -> str:
    """Control and format characters, which no picture can hold and which can turn text round, shown as a mark."""
    return "".join(one if one.isprintable() or one in kept else "\N{REPLACEMENT CHARACTER}" for one in text)


def _printable(value: Any) -> Any:
    return printable(value, "\n") if isinstance(value, str) else value


def beginning(text: str) -> str:
    """A text, or as much of it as is shown."""
    return text if len(text) <= TEXT_CHARS else text[:TEXT_CHARS] + " \N{HORIZONTAL ELLIPSIS}"


def _figures(found: Evaluation) -> list[tuple[str, str]]:
    figures: list[tuple[str, float | None]] = [
        ("accuracy", found.accuracy),
        ("macro-F1", found.macro_f1),
        ("ECE", found.ece),
        ("ECE before calibration", found.ece_uncalibrated),
        ("ECE by chance, of perfect scores", found.ece_floor),
        (f"AUC of {found.positive_label}", found.auc),
        (f"average precision of {found.positive_label}", found.average_precision),
        ("decided without a person", found.coverage),
        ("of them right", found.selective_accuracy),
    ]
    shown = [(name, f"{value:.3f}") for name, value in figures if value is not None]
    return [*shown, ("ms for one text (p50)", f"{found.latency.p50_ms:.1f}")]


def _pictures(contents: Contents, counts: np.ndarray, labels: Sequence[str]) -> dict[str, str]:
    judged = contents.judged
    uncalibrated = judged.uncalibrated
    right_before = uncalibrated.argmax(axis=1) == judged.targets
    return {
        "confusion": embedded(confusion_picture(counts, labels)),
        "reliability": embedded(
            reliability_picture(judged.confidence, judged.correct, uncalibrated.max(axis=1), right_before)
        ),
        "risk": embedded(risk_picture(judged.confidence, judged.correct, contents.review_below)),
    }


def embedded(svg: bytes) -> str:
    """A picture as the address of itself."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _confusions(counts: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:WORST]
    pairs = [divmod(int(place), len(labels)) for place in order]
    return [
        {"true": labels[row], "given": labels[column], "times": int(wrong[row, column])}
        for row, column in pairs
        if wrong[row, column]
    ]
