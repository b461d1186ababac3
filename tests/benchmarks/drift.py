"""What the drift detectors and the accuracy without labels say of real texts: those like the training's, and others.

    python -m tests.benchmarks.drift --task sms --release DIR --data same=dev.jsonl --data other=other.jsonl

Each file is scored by the release. Of it: each distance beside its limit, the accuracy and macro-F1 that calibrated
scores let expect, and, as the files are labelled, what they really are. Then `--draws` samples of `--events` texts of
each file: the share of the samples in which a quantity is called drift.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from models.classifier import Classifier
from models.embeddings import TextVectors
from models.evaluation import judge, macro_f1
from models.learning.drift import distance, shifts
from models.learning.estimated_accuracy import expected
from models.learning.profiles import PROFILE_VECTORS, Profile, read_profiles
from models.readers import read_examples
from models.tasks import Task


def measure(
    classifier: Classifier, vectors: TextVectors, profile: Profile, file: Path, events: int, draws: int
) -> dict[str, object]:
    examples = read_examples(file)
    judged = judge(classifier, examples)
    windows = [one.windows for one in classifier.model.encode([one.text for one in judged.examples])]
    of_texts = vectors([one.text for one in judged.examples])
    generator, drifted = np.random.default_rng(0), Counter[str]()
    for _ in range(draws):
        rows = generator.choice(len(windows), min(events, len(windows)), replace=False)
        tally = profile.tally(judged.chosen[rows], judged.confidence[rows], [windows[row] for row in rows])
        found = shifts(profile.bins, tally)
        if profile.vectors is not None:
            found["meaning"] = distance(profile.vectors, of_texts[rows[:PROFILE_VECTORS]])
        drifted.update(name for name, shift in found.items() if shift.drifted)
    all_of_them = shifts(profile.bins, profile.tally(judged.chosen, judged.confidence, windows))
    if profile.vectors is not None:
        all_of_them["meaning"] = distance(profile.vectors, of_texts[:PROFILE_VECTORS])
    hoped = expected(judged.probabilities)
    return {
        "texts": len(windows),
        "distances": {name: [round(one.value, 3), round(one.limit, 3)] for name, one in all_of_them.items()},
        "called_drift": {name: round(drifted[name] / draws, 3) for name in all_of_them},
        "expected_accuracy": None if hoped.accuracy is None else round(hoped.accuracy.value, 4),
        "accuracy": round(float(judged.correct.mean()), 4),
        "expected_macro_f1": None if hoped.macro_f1 is None else round(hoped.macro_f1, 4),
        "macro_f1": round(macro_f1(judged.targets, judged.chosen, judged.labels), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", required=True)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--draws", type=int, default=200)
    asked = parser.parse_args()
    classifier = Classifier.load(asked.release, Task(name=asked.task), "cpu", "onnxruntime-fp32", 1)
    vectors, profile = TextVectors(asked.release, classifier), read_profiles(asked.release)[asked.task]
    for each in asked.data:
        name, _, file = each.partition("=")
        found = measure(classifier, vectors, profile, Path(file), asked.events, asked.draws)
        print(json.dumps({"data": name, **found}), flush=True)


if __name__ == "__main__":
    main()
