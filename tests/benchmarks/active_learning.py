"""How many labels the choice of `models.learning.selection` saves: macro-F1 over labels asked for, against random.

    python -m tests.benchmarks.active_learning --data DIR [--data DIR] --seeds 5 --json

Each DIR has train.jsonl, the texts that come and can be asked about, and dev.jsonl to measure on. A head is learned
on frozen vectors of the packaged encoder: that takes a second, and is what a few labels allow. Every round asks for
`--step` labels, in three ways: drawn at random; the most informative; and as the watch asks, RANDOM_SHARE of them at
random. The last line has, by data set and way, the share of the labels it takes to reach the macro-F1 of random choice.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import Progress
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from models.learning.selection import informative, labels_to_reach, picked, uncertainty
from models.vectors import text_vectors

REGULARISATION = 20.0  # the head's, C of the logistic regression: chosen on no development text
Curve = list[tuple[int, float]]


class Part(NamedTuple):
    vectors: np.ndarray  # [n, width], of length 1
    labels: np.ndarray  # [n]


Way = Callable[[np.ndarray, np.ndarray, int, int], list[int]]  # uncertainty, vectors, how many, seed

WAYS: dict[str, Way] = {
    "random": lambda unsure, vectors, count, seed: (
        np.random.default_rng(seed).choice(len(unsure), count, replace=False).tolist()
    ),
    "informative": lambda unsure, vectors, count, seed: informative(unsure, vectors, count),
    "watch": lambda unsure, vectors, count, seed: [one.place for one in picked(unsure, vectors, count, seed)],
}


def read(folder: Path, part: str, cache: Path | None, progress: Progress) -> Part:
    """A part of a set; its vectors from the cache if they are there, as they take longest."""
    kept = None if cache is None else cache / f"{folder.name}-{part}.npz"
    if kept is not None and kept.is_file():
        with np.load(kept, allow_pickle=False) as file:
            return _part(file["v"], file["y"])
    with (folder / f"{part}.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    bar = progress.add_task(f"{folder.name} {part}: vectors", total=len(rows))
    vectors = text_vectors(
        [row["text"] for row in rows], progress=lambda _, done, all: progress.update(bar, completed=done)
    )
    labels = np.array([row["label"] for row in rows])
    if kept is not None:
        np.savez(kept, v=vectors, y=labels)
    return _part(vectors, labels)


def _part(vectors: np.ndarray, labels: np.ndarray) -> Part:
    return Part(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels)


def curve(way: Way, train: Part, dev: Part, step: int, most: int, seed: int) -> Iterator[tuple[int, float]]:
    """(labels, macro-F1) after each round; the first labels are drawn at random, the same ones for every way."""
    asked = np.random.default_rng(seed).permutation(len(train.labels))[:step].tolist()
    while True:
        head = LogisticRegression(C=REGULARISATION, max_iter=300).fit(train.vectors[asked], train.labels[asked])
        yield len(asked), float(f1_score(dev.labels, head.predict(dev.vectors), average="macro"))
        if len(asked) + step > most:
            return
        left = np.setdiff1d(np.arange(len(train.labels)), asked)
        unsure = uncertainty(head.predict_proba(train.vectors[left]))
        asked += left[way(unsure, train.vectors[left], step, 1000 * seed + len(asked))].tolist()


def measure(
    folder: Path, step: int, most: int, seeds: int, cache: Path | None, progress: Progress
) -> dict[str, object]:
    train, dev = read(folder, "train", cache, progress), read(folder, "dev", cache, progress)
    bar = progress.add_task(f"{folder.name}: rounds", total=len(WAYS) * seeds * (most // step))
    means: dict[str, Curve] = {}
    for name, way in WAYS.items():
        runs = []
        for seed in range(seeds):
            run = []
            for point in curve(way, train, dev, step, most, seed):
                run.append(point)
                progress.advance(bar)
            runs.append(run)
        means[name] = [
            (points[0][0], round(float(np.mean([f1 for _, f1 in points])), 4)) for points in zip(*runs, strict=True)
        ]
    labels, level = means["random"][-1]
    needed = {name: labels_to_reach(points, level) for name, points in means.items()}
    return {
        "data": folder.name,
        "texts": len(train.labels),
        "labels": labels,
        "macro_f1": level,
        "share": {name: None if found is None else round(found / labels, 3) for name, found in needed.items()},
        "curves": means,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--step", type=int, default=100)
    parser.add_argument("--most", type=int, default=1800)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="a folder that keeps the vectors")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with Progress() as progress:
        found = [measure(folder, asked.step, asked.most, asked.seeds, asked.cache, progress) for folder in asked.data]
    for one in found:
        print(f"{one['data']}: {one['macro_f1']} with {one['labels']} labels at random; share needed {one['share']}")
    if asked.json:
        json.dump({"sets": found, "step": asked.step, "seeds": asked.seeds}, sys.stdout)
        print()


if __name__ == "__main__":
    main()
