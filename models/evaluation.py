"""How good a classifier is: accuracy, F1, calibration, abstention and speed, graded on what is served."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from models.classifier import Classifier
from models.datasets import Example
from models.errors import BadDataset

ECE_BINS = 15  # as in Guo et al. 2017
LATENCY_TEXTS = 200  # single-text calls to time: enough for a p99, a second at most on a small encoder
TEMPERATURES = (0.2, 10.0)  # the range searched: outside it the logits are broken, not uncalibrated
GOLDEN = (math.sqrt(5) - 1) / 2

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


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
    """What `evaluate` found; all rates are in [0, 1]."""

    model_config = ConfigDict(frozen=True)

    task: str
    release: str
    n: int
    accuracy: float
    macro_f1: float
    ece: float
    per_label: dict[str, LabelScore]
    latency: Latency
    coverage: float | None = None
    selective_accuracy: float | None = None


def evaluate(classifier: Classifier, examples: Sequence[Example], review_below: float | None = None) -> Evaluation:
    """Grade a classifier on labelled examples; with `review_below` also what it would decide on its own.

    Raises BadDataset for no examples, and for a label that the release does not know.
    """
    targets = target_indices(classifier.labels, examples)
    started = time.perf_counter()
    scores = classifier.classify([example.text for example in examples])
    seconds = time.perf_counter() - started
    chosen, confidence = scores.argmax(axis=1), scores.max(axis=1)
    per_label = label_scores(targets, chosen, classifier.labels)
    coverage, selective = (None, None)
    if review_below is not None:
        coverage, selective = abstention(confidence, chosen == targets, review_below)
    return Evaluation(
        task=classifier.task,
        release=classifier.release,
        n=len(examples),
        accuracy=float((chosen == targets).mean()),
        macro_f1=macro_f1(targets, chosen, classifier.labels),
        ece=expected_calibration_error(confidence, chosen == targets),
        per_label=per_label,
        latency=_latency(classifier, examples, 1000 * seconds / len(examples)),
        coverage=coverage,
        selective_accuracy=selective,
    )


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


def expected_calibration_error(confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = ECE_BINS) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by their size (Guo et al. 2017, eq. 3).

    `confidence` [n] in [0, 1] is the score of the chosen label; bin m covers ((m - 1) / bins, m / bins].
    """
    which = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(which, weights=correct.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def abstention(confidence: Floats, correct: npt.NDArray[np.bool_], review_below: float) -> tuple[float, float | None]:
    """(coverage, selective accuracy): the share of texts decided without a person, and how many of those are right.

    The accuracy is None when every text goes to a person.
    """
    decided = confidence >= review_below
    return float(decided.mean()), float(correct[decided].mean()) if decided.any() else None


def negative_log_likelihood(logits: Floats, targets: Ints, temperature: float) -> float:
    """Mean -log p(target) of logits [n, labels] divided by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    log_partition = np.log(np.exp(scaled).sum(axis=1))
    return float((log_partition - scaled[np.arange(len(targets)), targets]).mean())


def fit_temperature(logits: Floats, targets: Ints) -> float:
    """The temperature that minimises the NLL of held-out logits [n, labels] (Guo et al. 2017, section 4.2).

    Few held-out examples say little: a normal prior on 1 / temperature, mean 1 and deviation 0.5, holds them back.
    The cost is convex in 1 / temperature, so there is one minimum for the golden section to find.
    """

    def cost(inverse: float) -> float:
        return negative_log_likelihood(logits, targets, 1 / inverse) + 2 * (inverse - 1) ** 2 / len(targets)

    coldest, hottest = TEMPERATURES
    return 1 / golden_section(cost, 1 / hottest, 1 / coldest)


def golden_section(function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-4) -> float:
    """Where a function with one minimum in [low, high] takes it, to within `tolerance`."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > tolerance:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2


def _latency(classifier: Classifier, examples: Sequence[Example], per_event_ms: float) -> Latency:
    texts = [example.text for example in examples[:: max(1, len(examples) // LATENCY_TEXTS)]][:LATENCY_TEXTS]
    times_ms = []
    for text in texts:
        started = time.perf_counter()
        classifier.classify([text])
        times_ms.append(1000 * (time.perf_counter() - started))
    p50_ms, p99_ms = np.percentile(times_ms, [50, 99])
    return Latency(p50_ms=float(p50_ms), p99_ms=float(p99_ms), per_event_ms=per_event_ms)
