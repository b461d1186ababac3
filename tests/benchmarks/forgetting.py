"""What a champion forgets while it learns new labels from few examples, and what rehearsal and distillation hold.

    python -m tests.benchmarks.forgetting --data banking77 --new 5 --examples 10 --old 20

Of the labels of an intent set, `--new` are taken away. A champion learns the others, then its successor the new ones
from `--examples` texts each. Both are graded on the development texts of the old labels, with all labels to choose
from: a text that goes to a new label is lost. One line of JSON for each way to learn.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from models.classifier import Classifier
from models.datasets import Example, check, read_jsonl
from models.evaluation import judge, summary
from models.export import make_release
from models.learning.curation import Curated
from models.learning.rehearsal import rehearsed
from models.learning.successor import settings_after, successor
from models.lessons import Lesson
from models.tasks import Task
from models.train_settings import TrainSettings
from models.training import train

WAYS: dict[str, tuple[dict[str, float], int]] = {  # knobs, old texts for each new one at most
    "rehearsal, distillation 0.5": ({"distill_weight": 0.5}, 1000),
    "rehearsal, distillation 0.2": ({"distill_weight": 0.2}, 1000),
    "rehearsal alone": ({"distill_weight": 0.0}, 1000),
    "one old text for each new one": ({"distill_weight": 0.0}, 1),
}


def quiet(what: str, done: int, total: int) -> None:
    """A progress that nobody watches."""


def drawn(examples: Sequence[Example], labels: Sequence[str], each: int) -> list[Example]:
    """So many examples of each of these labels."""
    return rehearsed([one for one in examples if one.label in labels], each * len(labels), 7)


def graded(release: Path, task: Task, examples: Sequence[Example]) -> float:
    """Macro-F1 over the examples' own labels, in points."""
    classifier = Classifier.load(release, task, "cpu", "onnxruntime-fp32", 1)
    per_label = summary(classifier, judge(classifier, examples)).per_label
    its = {one.label for one in examples}
    return 100 * sum(per_label[label].f1 for label in its) / len(its)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--new", type=int, default=5)
    parser.add_argument("--examples", type=int, default=10)
    parser.add_argument("--old", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--ways", type=int, default=len(WAYS))
    given = parser.parse_args()
    learn = check(read_jsonl(given.data / "train.jsonl")).examples
    dev = check(read_jsonl(given.data / "dev.jsonl")).examples
    labels = sorted({example.label for example in learn})
    new = set(random.Random(given.seed).sample(labels, given.new))
    known = [label for label in labels if label not in new]
    old_dev, new_dev = ([one for one in dev if (one.label in new) is its] for its in (False, True))
    old, task = drawn(learn, known, given.old), Task(name="intents", max_tokens=64)
    few = [
        Curated(str(row), one.text, one.label, 1.0, float(row), "chat", ("ann",))
        for row, one in enumerate(drawn(learn, sorted(new), given.examples))
    ]
    with tempfile.TemporaryDirectory() as folder:
        champion, began = Path(folder) / "champion", time.perf_counter()
        settings = TrainSettings(epochs=given.epochs, layer_decay=0.9, threads=1, seed=given.seed)
        make_release(train([Lesson(task, old, "old")], settings, quiet), "benchmark", champion, quiet)
        before = graded(champion, task, old_dev)
        shown = {"old_labels": len(known), "old_texts": len(old), "new_labels": len(new), "new_texts": len(few)}
        print(
            json.dumps({"way": "champion", "old_macro_f1": round(before, 2), **shown, "s": _since(began)}), flush=True
        )
        for way, (knobs, of_each) in list(WAYS.items())[: given.ways]:
            began = time.perf_counter()
            out = Path(folder) / way.replace(" ", "-") / "candidate"
            out.parent.mkdir()
            chosen = settings_after(champion, {"threads": 1, "seed": given.seed, **knobs})
            successor(task, champion, rehearsed(old, of_each * len(few), given.seed), few, chosen, out, quiet)
            after, found = graded(out, task, old_dev), graded(out, task, new_dev)
            row = {"old_macro_f1": round(after, 2), "fell": round(before - after, 2), "new_macro_f1": round(found, 2)}
            print(json.dumps({"way": way, **row, "s": _since(began)}), flush=True)


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 1)


if __name__ == "__main__":
    main()
