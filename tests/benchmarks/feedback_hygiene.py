"""What curation catches of feedback that is partly wrong and partly hostile, what honest labels it costs, and what for.

    python -m tests.benchmarks.feedback_hygiene --data train.jsonl --dev dev.jsonl --attack hide --seeds 3

A real set is parted into what a model has learned and what eight annotators label as feedback, one text in ten twice.
5% of their labels are wrong, another one at random. One of the eight attacks: `flip` always says the next label, `hide`
calls all texts of one label by the next, `flood` besides sends ten near-copies of each such text, `none` is like the
others. Reported are means over seeds: texts with a wrong label that are kept, honest texts that wait for a person, who
is quarantined, and the macro-F1 on dev of a logistic regression on the vectors of the packaged encoder that learns
what was known and the feedback as it is (of each text the first label), curated, or with the true labels. So many
`--new-labels` are unknown before. With `--fine-tune EPOCHS` the encoder is fine-tuned on each of the four, too: the
regression is judge and pupil in one.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.datasets import Example, check, labels_of
from models.evaluation import macro_f1
from models.label_errors import taught
from models.learning.curating import curate
from models.learning.curation import QUARANTINE, Curation
from models.learning.opinions import Opinion
from models.readers import read_examples

ANNOTATORS = 8
HOSTILE = "annotator0"
WRONG = 0.05
TWICE = 0.1
COPIES = 10


class Feedback(NamedTuple):
    """What is said of texts, and what is true of them."""

    opinions: list[Opinion]
    truth: dict[str, str]  # by key
    hostile: set[str]  # keys with a wrong label of the attacker, and
    mistaken: set[str]  # with one by mistake
    honest: set[str]  # keys with true labels only, not all of the attacker


def feedback(examples: Sequence[Example], labels: Sequence[str], attack: str, seed: int) -> Feedback:
    """Opinions on the examples, one a minute."""
    chooser = random.Random(seed)
    names = [f"annotator{number}" for number in range(ANNOTATORS)]
    after = dict(zip(labels, (*labels[1:], labels[0]), strict=True))
    hidden = labels[-1 - seed % len(labels)]
    found = Feedback([], {}, set(), set(), set())
    for number, (text, true) in enumerate(examples):
        people = chooser.sample(names, 2 if chooser.random() < TWICE else 1)
        given = {name: true if chooser.random() >= WRONG else _another(true, labels, chooser) for name in people}
        if HOSTILE in given and attack != "none":
            given[HOSTILE] = after[true] if attack == "flip" or true == hidden else true
        texts = [text]
        if attack == "flood" and given.get(HOSTILE, true) != true:
            texts += [f"{text} {chooser.choice(text.split())}" for _ in range(COPIES)]
        for copy, copied in enumerate(texts):
            key, time_s = f"t/0/{number}-{copy}", 1e9 + 60.0 * number
            found.truth[key] = true
            for name, label in given.items():
                if copy and name != HOSTILE:
                    continue
                found.opinions.append(Opinion("t", key, copied, label, name, time_s, time_s, ("a", "b")[number % 2]))
                if label != true:
                    (found.hostile if name == HOSTILE and attack != "none" else found.mistaken).add(key)
            if all(label == true for label in given.values()) and (attack == "none" or list(given) != [HOSTILE]):
                found.honest.add(key)
    return found


def _another(label: str, labels: Sequence[str], chooser: random.Random) -> str:
    return chooser.choice([other for other in labels if other != label])


class Bench:
    """One set, its vectors, and how well a model is taught by some of it."""

    def __init__(self, data: Path, dev: Path) -> None:
        self.examples = check(read_examples(data)).examples
        self.dev = read_examples(dev)
        self.labels = labels_of(self.examples)
        self._seen: dict[str, npt.NDArray[np.float32]] = {}

    def vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors [n, width], each computed once."""
        from models.vectors import text_vectors

        new = [text for text in dict.fromkeys(texts) if text not in self._seen]
        if new:
            self._seen.update(zip(new, text_vectors(new), strict=True))
        return np.stack([self._seen[text] for text in texts])

    def score(self, taught_by: Sequence[Example]) -> float:
        """Macro-F1 on dev, in points."""
        column = {label: place for place, label in enumerate(self.labels)}
        targets = np.array([column[one.label] for one in taught_by], np.int64)
        asked = self.vectors([one.text for one in self.dev])
        found = taught(self.vectors([one.text for one in taught_by]), targets, asked, len(self.labels))
        truth = np.array([column[one.label] for one in self.dev], np.int64)
        return 100 * macro_f1(truth, found.argmax(axis=1), self.labels)

    def tuned(self, taught_by: Sequence[Example], weights: Sequence[float], epochs: int, seed: int) -> float:
        """The same after fine-tuning, as `streamgauge train` does it."""
        from models.lessons import Lesson
        from models.tasks import load_task
        from models.train_settings import settings_of
        from models.training import train

        held = dict(zip(taught_by, weights, strict=True))
        examples = check(taught_by).examples
        counts = np.array([held[example] for example in examples])
        lesson = Lesson(load_task("feedback"), examples, "feedback", self.dev, weights=counts)
        settings = settings_of({"epochs": epochs, "seed": seed}, "knobs")
        return 100 * train([lesson], settings, lambda *_: None).heads[0].dev_macro_f1

    def run(self, attack: str, given: argparse.Namespace, seed: int) -> dict[str, float]:
        """Figures of one seed."""
        known, asked = given.known, given.asked
        chooser = random.Random(seed)
        shuffled = chooser.sample(self.examples, len(self.examples))
        unknown = set(chooser.sample(self.labels, given.new_labels))
        before = [one for one in shuffled[:known] if one.label not in unknown]
        said = feedback(shuffled[known : known + asked], self.labels, attack, seed)
        self.vectors([one.text for one in (*before, *self.dev)] + [one.text for one in said.opinions])
        began = process_time()
        curation = curate(said.opinions, before, [], self.vectors)
        seconds = process_time() - began
        first = {opinion.key: Example(opinion.text, opinion.label) for opinion in reversed(said.opinions)}
        true = {one.key: Example(one.text, said.truth[one.key]) for one in said.opinions if one.key.endswith("-0")}
        ways = {
            "known": [],
            "as_it_is": list(first.values()),
            "curated": [Example(row.text, row.label) for row in curation.kept],
            "true": list(true.values()),
        }
        figures = _ends(said, curation, unknown) | {"cpu_s": seconds}
        for way, more in ways.items():
            figures[f"f1_{way}"] = self.score([*before, *more])
            if given.fine_tune:
                surenesses = [row.weight for row in curation.kept] if way == "curated" else [1.0] * len(more)
                weights = [1.0] * len(before) + surenesses
                figures[f"tuned_{way}"] = self.tuned([*before, *more], weights, given.fine_tune, seed)
        return figures


def _ends(said: Feedback, curation: Curation, unknown: set[str]) -> dict[str, float]:
    wrong = {row.key for row in curation.kept if row.label != said.truth[row.key]}
    waiting = {one.key for one in curation.set_aside if one.reason in QUARANTINE}
    barred = {name for name, grade in curation.annotators.items() if grade.quarantined}
    new = {key for key in said.honest if said.truth[key] in unknown}
    return {
        "hostile": len(said.hostile),
        "hostile_kept": len(wrong & said.hostile),
        "mistaken": len(said.mistaken),
        "mistaken_kept": len(wrong & said.mistaken),
        "honest": len(said.honest),
        "honest_waiting": len(said.honest & waiting),
        "new": len(new),
        "new_waiting": len(new & waiting),
        "hostile_barred": float(HOSTILE in barred),
        "honest_barred": len(barred - {HOSTILE}),
    }


def main() -> None:
    """Print one JSON line for each attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--attack", default="none,flip,hide,flood")
    parser.add_argument("--known", type=int, default=1500)
    parser.add_argument("--asked", type=int, default=1500)
    parser.add_argument("--new-labels", type=int, default=0)
    parser.add_argument("--fine-tune", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    bench = Bench(given.data, given.dev)
    for attack in given.attack.split(","):
        runs = [bench.run(attack, given, seed) for seed in range(given.seeds)]
        means: dict[str, Any] = {name: round(fmean(run[name] for run in runs), 2) for name in runs[0]}
        gains = [run["f1_curated"] - run["f1_as_it_is"] for run in runs]
        means |= {"gain": round(fmean(gains), 2), "gain_deviation": round(stdev(gains), 2) if len(gains) > 1 else None}
        print(json.dumps({"data": given.data.parent.name, "attack": attack, "seeds": given.seeds} | means), flush=True)


if __name__ == "__main__":
    main()
