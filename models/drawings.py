"""The pictures of reports, as SVG: confusion matrix, reliability diagram, curves of risk, training and evidence.

matplotlib (extra `train`) is imported here alone. Text in the pictures comes from data: it is never taken for
mathematics, and the report embeds each picture as an image, in which nothing can run.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from models.calibration import reliability
from models.ranking import risk_coverage

MOST_LABELS = 30  # in one matrix: with more, the labels that are confused most
NUMBERED_UP_TO = 16  # labels: beyond them numbers in the cells could not be read
LABEL_CHARS = 28
BLUE, GREY, ORANGE = "#2b6ca3", "#8a8f98", "#c8652b"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and the reader's fonts have its letters
    "svg.hashsalt": "streamgauge",  # the same picture, the same bytes
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


def confusion_counts(targets: Ints, chosen: Ints, labels: int) -> npt.NDArray[np.int64]:
    """How many examples of each true label (row) got each label (column), [labels, labels]."""
    return np.bincount(targets * labels + chosen, minlength=labels * labels).reshape(labels, labels)


def most_confused(counts: npt.NDArray[np.int64], most: int = MOST_LABELS) -> list[int]:
    """The labels that have most to do with mistakes, true or given, at most `most` of them, in their own order."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    involved = wrong.sum(axis=0) + wrong.sum(axis=1)
    return sorted(np.argsort(-involved, kind="stable")[:most].tolist())


def confusion_picture(
    counts: npt.NDArray[np.int64], labels: Sequence[str], shown: Sequence[int] | None = None
) -> bytes:
    """Rows are true labels, and colours their shares; the labels `shown`, or at most MOST_LABELS of them."""
    shown = most_confused(counts) if shown is None else shown
    part = counts[np.ix_(shown, shown)]
    shares = part / np.maximum(counts[shown].sum(axis=1, keepdims=True), 1)
    names = [_short(labels[column]) for column in shown]
    size = max(3.2, 1.6 + 0.26 * len(shown))
    with _axes(size + 1.2, size) as (figure, axes):
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("given label")
        axes.set_ylabel("true label")
        figure.colorbar(image, ax=axes, fraction=0.046, label="share of the true label")
        if len(shown) <= NUMBERED_UP_TO:
            for (row, column), count in np.ndenumerate(part):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour)
        return _svg(figure)


def reliability_picture(confidence: Floats, correct: Bools, before: Floats, correct_before: Bools) -> bytes:
    """Accuracy of answers of like confidence, calibrated and before; on the diagonal scores mean what they say."""
    with _axes(4.2, 3.6) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        for values, right, name, colour, mark in (
            (before, correct_before, "before calibration", ORANGE, "s"),
            (confidence, correct, "calibrated", BLUE, "o"),
        ):
            found = reliability(values, right)
            some = found.sizes > 0
            areas = 4 + 200 * found.sizes[some] / len(values)
            axes.scatter(found.confidence[some], found.accuracy[some], s=areas, color=colour, marker=mark, alpha=0.8)
            axes.scatter([], [], s=30, color=colour, marker=mark, label=name)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="mean score of the answers", ylabel="share of them right")
        axes.legend(loc="upper left", frameon=False)
        return _svg(figure)


def risk_picture(confidence: Floats, correct: Bools, review_below: float) -> bytes:
    """The share of wrong answers among the most confident ones; a mark where the task hands over to people."""
    curve = risk_coverage(confidence, correct)
    with _axes(4.2, 3.6) as (figure, axes):
        axes.plot(curve.coverage, curve.risk, color=BLUE)
        decided = float((confidence >= review_below).mean())
        axes.axvline(decided, color=ORANGE, linewidth=1, linestyle="--", label=f"score {review_below} and more")
        axes.set(xlim=(0, 1.01), xlabel="share of texts decided without a person", ylabel="share of those wrong")
        axes.set_ylim(0, max(0.01, 1.1 * float(curve.risk.max())))
        axes.legend(loc="upper left", frameon=False)
        return _svg(figure)


def curve_picture(points: Sequence[tuple[int, float]], name: str) -> bytes:
    """A figure by optimiser steps, one point at least."""
    steps, values = zip(*points, strict=True)
    with _axes(3.4, 2.4) as (figure, axes):
        axes.plot(steps, values, color=BLUE, marker="." if len(points) < 30 else "")
        axes.set(xlabel="steps", title=_short(name))
        return _svg(figure)


def evidence_picture(counts: Sequence[int], better: Floats, worse: Floats, promote: float, roll_back: float) -> bytes:
    """E-values [looks] by the number of labels, on a logarithmic scale, and the limits at which they decide."""
    with _axes(5.6, 3.2) as (figure, axes):
        axes.axhline(1, color=GREY, linewidth=0.8)
        for values, limit, name, colour in ((better, promote, "better", BLUE), (worse, roll_back, "worse", ORANGE)):
            axes.plot(counts, values, color=colour, label=f"challenger is {name}")
            axes.axhline(limit, color=colour, linewidth=1, linestyle="--")
        axes.set(xlabel="labelled texts", ylabel="evidence (e-value)", yscale="log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # the scale's own writes mathematics
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="best", frameon=False)
        return _svg(figure)


def _short(label: str) -> str:
    return label if len(label) <= LABEL_CHARS else label[: LABEL_CHARS - 1] + "\N{HORIZONTAL ELLIPSIS}"


@contextmanager
def _axes(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Widths are guessed with matplotlib's own font; the browser's draws the letters.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
