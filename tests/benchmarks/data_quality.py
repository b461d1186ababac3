"""How well planted label errors and planted near-duplicates are found in a real set, and what augmentation is worth.

    python -m tests.benchmarks.data_quality errors --data train.jsonl --rates 0.02,0.05,0.1 --seeds 3
    python -m tests.benchmarks.data_quality near --data train.jsonl --count 300
    python -m tests.benchmarks.data_quality augmentation --task sentiment --data train.jsonl --dev dev.jsonl --seeds 3

The first changes the labels of a known share of the examples, to another label at random or to the one that a model
confuses it with most (harder: so people err), and reports precision and recall of `streamgauge data errors`. The errors
that the set has already count as wrongly found: a ceiling of precision. The second adds copies with words
changed. The third trains with each kind of variant and without, by turns, and reports dev macro-F1 with its deviation.
"""

import argparse
import json
import random
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

from models.augmentation import AugmentSettings, augment
from models.datasets import Example, check, labels_of, normalised
from models.label_errors import Floats, Targets, label_errors, out_of_fold
from models.near_duplicates import ALIKE, hashed_grams, jaccard, near_duplicates
from models.readers import read_examples

KINDS = ("synonyms", "typos", "casing", "entities", "numbers")


def errors(data: Path, rates: list[float], seeds: int, limit: int | None) -> list[dict[str, Any]]:
    """Precision and recall by kind and rate of the planted errors, means over seeds."""
    from models.vectors import text_vectors

    examples = _sample(check(read_examples(data)).examples, limit)
    column_of = {label: column for column, label in enumerate(labels_of(examples))}
    truth = np.array([column_of[example.label] for example in examples], np.int64)
    vectors = text_vectors([example.text for example in examples])
    before = out_of_fold(vectors, truth)
    as_it_is = {"data": data.parent.name, "n": len(examples), "suspects_as_it_is": len(label_errors(before, truth))}
    rows = [as_it_is]
    for kind in ("at random", "confused"):
        for rate in rates:
            figures = [_found(vectors, truth, before, rate, seed, kind == "confused") for seed in range(seeds)]
            means = {name: round(fmean(one[name] for one in figures), 3) for name in figures[0]}
            rows.append({"kind": kind, "rate": rate, "planted": round(rate * len(truth)), **means})
    return rows


def _found(
    vectors: npt.NDArray[np.float32], truth: Targets, before: Floats, rate: float, seed: int, confused: bool
) -> dict[str, float]:
    given, planted = _planted(truth, before, rate, seed, confused)
    suspects = label_errors(out_of_fold(vectors, given, seed=seed), given)
    found = {suspect.row for suspect in suspects}
    right = sum(suspect.suggested == truth[suspect.row] for suspect in suspects if suspect.row in planted)
    surest = [suspect.row in planted for suspect in suspects[: len(planted)]]
    return {
        "suspects": len(found),
        "precision": len(found & planted) / max(1, len(found)),
        "recall": len(found & planted) / len(planted),
        "precision_of_as_many_as_planted": sum(surest) / max(1, len(surest)),
        "suggestion_right": right / max(1, len(found & planted)),
    }


def _planted(truth: Targets, before: Floats, rate: float, seed: int, confused: bool) -> tuple[Targets, set[int]]:
    chooser = np.random.default_rng(seed)
    planted = chooser.choice(len(truth), round(rate * len(truth)), replace=False)
    given = truth.copy()
    if confused:
        others = before.copy()
        others[np.arange(len(truth)), truth] = -1
        given[planted] = others[planted].argmax(axis=1)
    else:
        labels = before.shape[1]
        given[planted] = (truth[planted] + chooser.integers(1, labels, len(planted))) % labels
    return given, set(planted.tolist())


def near(data: Path, count: int, limit: int | None) -> list[dict[str, Any]]:
    """Copies with one word in ten dropped, doubled or cut: of those that are alike enough, how many are found."""
    texts = list({normalised(one.text): one.text for one in _sample(read_examples(data), limit)}.values())
    chooser = random.Random(1)
    chosen = chooser.sample(range(len(texts)), min(count, len(texts)))
    copies = [_edited(texts[row], chooser) for row in chosen]
    alike = [jaccard(hashed_grams(texts[row]), hashed_grams(copy)) for row, copy in zip(chosen, copies, strict=True)]
    wanted = {(row, len(texts) + place) for place, row in enumerate(chosen) if alike[place] >= ALIKE}
    found = {(pair.first, pair.second) for pair in near_duplicates([*texts, *copies])}
    return [{"data": data.parent.name, "texts": len(texts), "planted": len(wanted), "found": len(wanted & found)}]


def _edited(text: str, chooser: random.Random) -> str:
    words = text.split()
    for _ in range(max(1, len(words) // 10)):
        place = chooser.randrange(len(words))
        words[place] = chooser.choice(["", words[place] * 2, words[place][:-1]])
    return " ".join(words)


def augmentation(
    task: str, data: Path, dev: Path, seeds: int, copies: int, knobs: dict[str, Any]
) -> list[dict[str, Any]]:
    """Dev macro-F1 without variants, with each kind alone and with the default mixture; variants of train only."""
    from models.lessons import Lesson
    from models.tasks import load_task
    from models.train_settings import settings_of
    from models.training import train

    examples, dev_examples = check(read_examples(data)).examples, read_examples(dev)
    ways = {"none": None, "mixture": AugmentSettings(copies=copies)}
    for kind in KINDS:
        ways[kind] = AugmentSettings(copies=copies, **{one: float(one == kind) for one in KINDS})
    scores: dict[str, list[float]] = {way: [] for way in ways}
    made: dict[str, int] = {}
    for seed in range(seeds):
        for way, settings in ways.items():
            more = augment(examples, settings, random.Random(seed)) if settings else []
            made[way] = len(more)
            lesson = Lesson(load_task(task), [*examples, *more], data.name, dev_examples)
            checkpoint = train([lesson], settings_of(knobs | {"seed": seed}, "knobs"), lambda *_: None)
            scores[way].append(checkpoint.heads[0].dev_macro_f1)
            print(json.dumps({"seed": seed, "way": way, "macro_f1": scores[way][-1]}), flush=True)
    return [
        {
            "way": way,
            "variants": made[way],
            "macro_f1": round(fmean(its), 4),
            "deviation": round(stdev(its), 4) if seeds > 1 else None,
            "gain": round(fmean(its) - fmean(scores["none"]), 4),
        }
        for way, its in scores.items()
    ]


def _sample(examples: list[Example], limit: int | None) -> list[Example]:
    if limit is None or limit >= len(examples):
        return examples
    return random.Random(0).sample(examples, limit)


def main() -> None:
    """Run one of the three, and print one JSON line for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["errors", "near", "augmentation"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dev", type=Path)
    parser.add_argument("--task", default="sentiment")
    parser.add_argument("--rates", default="0.05,0.1")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="so many examples, chosen at random")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--knob", action="append", default=[], metavar="NAME=JSON", help="a knob of training")
    given = parser.parse_args()
    if given.what == "errors":
        rates = [float(rate) for rate in given.rates.split(",")]
        rows = errors(given.data, rates, given.seeds, given.limit)
    elif given.what == "near":
        rows = near(given.data, given.count, given.limit)
    else:
        if given.dev is None:
            parser.error("augmentation needs --dev")
        knobs = {name: json.loads(value) for name, _, value in (one.partition("=") for one in given.knob)}
        rows = augmentation(given.task, given.data, given.dev, given.seeds, given.copies, knobs)
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
