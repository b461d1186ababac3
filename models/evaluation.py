"""How good a classifier is: accuracy, F1, calibration, abstention, scope and speed, graded on what is served."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from models.calibration import abstention, calibration_floor, expected_calibration_error
from models.classifier import Classifier, Head
from models.datasets import Example
from models.errors import BadDataset
from models.out_of_scope import OUTSIDE_LABELS, Scope, choose_scope, outside_column
from models.ranking import area_under_risk, auc, average_precision
from models.scope_grades import OutOfScope, Texts, scope_grades
from models.softmax import softmax
from models.tasks import Task

LATENCY_TEXTS = 200  # single-text calls to time: enough for a p99, a second at most on a small encoder

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


class LabelScore(BaseModel):
    """One label's precision, recall and F1 (0 where undefined), and how many examples truly carry it."""

    model_config = ConfigDict(frozen=True)

    precision: float
    recall: float
    f1: float
    support: int


class Latency(BaseModel):
    """Milliseconds: percentiles of single-text calls, and the share of one event when texts come in batches."""

    model_config = ConfigDict(frozen=True)

    p50_ms: float
    p99_ms: float
    per_event_ms: float


class Evaluation(BaseModel):
    """What `evaluate` found; all rates are in [0, 1]. The figures for two labels are about the rarer one of the two."""

    model_config = ConfigDict(frozen=True)

    task: str
    release: str
    n: int
    accuracy: float
    macro_f1: float
    ece: float
    ece_uncalibrated: float
    ece_floor: float  # what perfectly calibrated scores would show on so many texts
    aurc: float
    per_label: dict[str, LabelScore]
    latency: Latency
    positive_label: str | None = None
    auc: float | None = None
    average_precision: float | None = None
    coverage: float | None = None
    selective_accuracy: float | None = None
    out_of_scope: OutOfScope | None = None


@dataclass(frozen=True)
class Judged:
    """Labelled examples beside what a classifier says of them, row by row.

    A text out of scope for which the release has no label is not among them: how familiar those are is in `strangers`.
    """

    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    targets: Ints  # [n], columns of the labels
    probabilities: Floats  # [n, labels], calibrated
    uncalibrated: Floats  # the same at temperature 1
    familiarity: Floats  # [n]
    strangers: tuple[Example, ...]
    stranger_probabilities: Floats  # [m, labels]
    stranger_familiarity: Floats  # [m]
    seconds: float  # all of it took

    @property
    def chosen(self) -> Ints:
        """The column of each example's best label."""
        columns: Ints = self.probabilities.argmax(axis=1)
        return columns

    @property
    def confidence(self) -> Floats:
        """The best label's score, [n]."""
        highest: Floats = self.probabilities.max(axis=1)
        return highest

    @property
    def correct(self) -> Bools:
        """Whether the best label is the true one, [n]."""
        right: Bools = self.chosen == self.targets
        return right


def evaluate(classifier: Classifier, examples: Sequence[Example], review_below: float | None = None) -> Evaluation:
    """Grade a classifier on labelled examples; with `review_below` also what it would decide on its own.

    Raises BadDataset for no examples, and for a label that the release does not know. Known of every release are the
    labels for what is out of scope.
    """
    return summary(classifier, judge(classifier, examples), review_below)


def judge(classifier: Classifier, examples: Sequence[Example]) -> Judged:
    """Score labelled examples. Raises as `evaluate` does."""
    inside, strangers = without_strangers(classifier.labels, examples)
    targets = target_indices(classifier.labels, inside)
    started = time.perf_counter()
    reading = classifier.read([one.text for one in (*inside, *strangers)])
    probabilities, familiarity = classifier.scored(reading)
    seconds = time.perf_counter() - started
    count, columns = len(inside), classifier.head.columns
    return Judged(
        labels=classifier.labels,
        examples=tuple(inside),
        targets=targets,
        probabilities=probabilities[:count],
        uncalibrated=classifier.by_text(reading, softmax(reading.logits[:, columns]))[:count],
        familiarity=familiarity[:count],
        strangers=tuple(strangers),
        stranger_probabilities=probabilities[count:],
        stranger_familiarity=familiarity[count:],
        seconds=seconds,
    )


def summary(classifier: Classifier, judged: Judged, review_below: float | None = None) -> Evaluation:
    """The figures; `latency` is measured here."""
    correct, confidence = judged.correct, judged.confidence
    coverage, selective = (None, None)
    if review_below is not None:
        sure = np.where(_denied(classifier.head, judged), -1.0, confidence)
        coverage, selective = abstention(sure, correct, review_below)
    positive, auc_of, precision = _two_labels(judged)
    uncalibrated = judged.uncalibrated
    before = expected_calibration_error(uncalibrated.max(axis=1), uncalibrated.argmax(axis=1) == judged.targets)
    return Evaluation(
        task=classifier.task,
        release=classifier.release,
        n=len(judged.examples),
        accuracy=float(correct.mean()),
        macro_f1=macro_f1(judged.targets, judged.chosen, judged.labels),
        ece=expected_calibration_error(confidence, correct),
        ece_uncalibrated=before,
        ece_floor=calibration_floor(confidence),
        aurc=area_under_risk(confidence, correct),
        per_label=label_scores(judged.targets, judged.chosen, judged.labels),
        latency=_latency(classifier, judged.examples, 1000 * judged.seconds / len(judged.examples)),
        positive_label=positive,
        auc=auc_of,
        average_precision=precision,
        coverage=coverage,
        selective_accuracy=selective,
        out_of_scope=_out_of_scope(classifier.head, judged),
    )


def _two_labels(judged: Judged) -> tuple[str | None, float | None, float | None]:
    """(positive label, AUC, average precision); the positive label is the rarer one, on equal terms the second."""
    if len(judged.labels) != 2:
        return None, None, None
    column = int(judged.targets.mean() <= 0.5)
    positive, scores = judged.targets == column, judged.probabilities[:, column]
    return judged.labels[column], auc(positive, scores), average_precision(positive, scores)


def _denied(head: Head, judged: Judged) -> Bools:
    """Texts [n] too strange for the label they have: a person decides, whatever the score."""
    denied: Bools = head.is_outside(judged.probabilities, judged.familiarity) & in_scope(head, judged.chosen)
    return denied


def _out_of_scope(head: Head, judged: Judged) -> OutOfScope | None:
    inside, outside = _sides(head, judged)
    return scope_grades(head, inside, outside, judged.correct[in_scope(head, judged.targets)])


def _sides(head: Head, judged: Judged) -> tuple[Texts, Texts]:
    """The texts in scope and those out of scope, be it by a label of the release or as strangers."""
    known = in_scope(head, judged.targets)
    inside = Texts(judged.probabilities[known], judged.familiarity[known])
    outside = Texts(
        np.concatenate([judged.probabilities[~known], judged.stranger_probabilities]),
        np.concatenate([judged.familiarity[~known], judged.stranger_familiarity]),
    )
    return inside, outside


def in_scope(head: Head, columns: Ints) -> Bools:
    """Which columns [n] of labels are in scope: all of them, if no label stands for out of scope."""
    known: Bools = columns != (-1 if head.outside is None else head.outside)
    return known


def fit_scope(head: Head, judged: Judged, task: Task) -> Scope | None:
    """From where on a text is in scope, chosen on development examples of which some are out of scope.

    None where none or too few are: see `out_of_scope.choose_scope`.
    """
    inside, outside = _sides(head, judged)
    return choose_scope(inside.familiarity, outside.familiarity, task.false_acceptance, task.most_turned_away)


def without_strangers(labels: Sequence[str], examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """The examples for which there is a label or should be one, and those out of scope for which there is none."""
    strange = [is_stranger(labels, example) for example in examples]
    inside = [example for example, out in zip(examples, strange, strict=True) if not out]
    return inside, [example for example, out in zip(examples, strange, strict=True) if out]


def is_stranger(labels: Sequence[str], example: Example) -> bool:
    """Whether an example is out of scope, and no label stands for that."""
    return example.label in OUTSIDE_LABELS and outside_column(labels) is None


def target_indices(labels: Sequence[str], examples: Sequence[Example]) -> npt.NDArray[np.int64]:
    """Each example's label as a column number. Raises BadDataset for no examples or an unknown label."""
    if not examples:
        raise BadDataset("there are no examples to grade on")
    column_of = {label: column for column, label in enumerate(labels)}
    unknown = sorted({example.label for example in examples} - set(column_of))
    if unknown:
        raise BadDataset(
            f"label {unknown[0]!r} is not among the release's labels: {', '.join(labels)}"
            + (f" (and {len(unknown) - 1} more labels)" if len(unknown) > 1 else "")
        )
    return np.array([column_of[example.label] for example in examples], np.int64)


def label_scores(targets: Ints, chosen: Ints, labels: Sequence[str]) -> dict[str, LabelScore]:
    """Precision, recall, F1 and support of every label."""
    scores = {}
    for column, label in enumerate(labels):
        hits = int(((targets == column) & (chosen == column)).sum())
        support, picked = int((targets == column).sum()), int((chosen == column).sum())
        scores[label] = LabelScore(
            precision=hits / picked if picked else 0.0,
            recall=hits / support if support else 0.0,
            f1=2 * hits / (support + picked) if support + picked else 0.0,
            support=support,
        )
    return scores


def macro_f1(targets: Ints, chosen: Ints, labels: Sequence[str]) -> float:
    """Mean F1 over the labels that occur in truth or prediction."""
    scores = label_scores(targets, chosen, labels)
    present = {*targets.tolist(), *chosen.tolist()}
    return float(np.mean([scores[labels[column]].f1 for column in sorted(present)]))


def _latency(classifier: Classifier, examples: Sequence[Example], per_event_ms: float) -> Latency:
    texts = [example.text for example in examples[:: max(1, len(examples) // LATENCY_TEXTS)]][:LATENCY_TEXTS]
    times_ms = []
    for text in texts:
        started = time.perf_counter()
        classifier.classify([text])
        times_ms.append(1000 * (time.perf_counter() - started))
    p50_ms, p99_ms = np.percentile(times_ms, [50, 99])
    return Latency(p50_ms=float(p50_ms), p99_ms=float(p99_ms), per_event_ms=per_event_ms)
