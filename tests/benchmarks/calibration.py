"""How well releases are calibrated on texts that their calibration was not fitted to: one temperature, and three.

    python -m tests.benchmarks.calibration --task fpb --release DIR --data dev.jsonl [--draws 3]

The development texts are cut into five folds, each scored by a calibration that was fitted to the other four, and the
expected calibration error is that of all of them. Means over draws of the folds. Texts of one window alone: how windows
are merged is no question here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from models.calibration import calibration_floor, expected_calibration_error
from models.classifier import Classifier
from models.datasets import read_jsonl
from models.evaluation import target_indices, without_strangers
from models.softmax import softmax
from models.tasks import load_task
from models.temperature import LEAST_BENT, Calibration, fit_calibration, negative_log_likelihood

FOLDS = 5


def fitted(logits: np.ndarray, targets: np.ndarray, bent: bool) -> Calibration:
    """To held-out logits [n, labels]; who has few texts gets one temperature."""
    texts = len(targets) if bent else min(len(targets), LEAST_BENT - 1)
    return fit_calibration(lambda its: negative_log_likelihood(logits, targets, its), logits, texts)


def out_of_fold(logits: np.ndarray, targets: np.ndarray, bent: bool, seed: int) -> np.ndarray:
    """Scores [n, labels], each by a calibration that has not seen its text."""
    order, scores = np.random.default_rng(seed).permutation(len(targets)), np.zeros_like(logits)
    for fold in range(FOLDS):
        held_out = order[fold::FOLDS]
        others = np.setdiff1d(order, held_out)
        scores[held_out] = softmax(fitted(logits[others], targets[others], bent).applied(logits[held_out]))
    return scores


def measured(logits: np.ndarray, targets: np.ndarray, draws: int) -> dict[str, float]:
    """Calibration error and negative log-likelihood, of both."""
    found: dict[str, float] = {
        "floor": calibration_floor(softmax(fitted(logits, targets, True).applied(logits)).max(1))
    }
    for name, bent in (("one", False), ("three", True)):
        drawn = [out_of_fold(logits, targets, bent, seed) for seed in range(draws)]
        right = [scores[np.arange(len(targets)), targets] for scores in drawn]
        errors = [expected_calibration_error(one.max(axis=1), one.argmax(axis=1) == targets) for one in drawn]
        found |= {f"ece_{name}": float(np.mean(errors)), f"nll_{name}": float(-np.mean(np.log(right)))}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", required=True)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=3)
    args = parser.parse_args()
    classifier = Classifier.load(args.release, load_task(args.task), "cpu", "onnxruntime-fp32")
    examples, _ = without_strangers(classifier.labels, read_jsonl(args.data))
    reading = classifier.read([example.text for example in examples])
    single = [row for row, its in enumerate(reading.windows) if len(its) == 1]
    starts = np.cumsum([0, *(len(its) for its in reading.windows)])[single]
    targets = target_indices(classifier.labels, [examples[row] for row in single])
    logits = reading.logits[starts][:, classifier.head.columns]
    print(json.dumps({"task": args.task, "texts": len(single), **measured(logits, targets, args.draws)}))


if __name__ == "__main__":
    main()
