"""Compares the CPU runtimes on real releases and real texts: rate, accuracy and latency, side by side.

    python -m tests.benchmarks.runtimes RELEASE=dev.jsonl RELEASE=dev.jsonl ... [--config config.json] [--rounds 5]

Each RELEASE is the directory of a release with one head, dev.jsonl its labelled texts. For a release without an encoder
configuration, which PyTorch needs, --config names one. A round runs every text of a set once through each runtime in
turn, in as many threads as there are cores, in batches of like length; rates are the medians of the rounds, and ratios
those of a round's own pairs. Prints one JSON object and a table for each set.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from models.classifier import Model
from models.datasets import read_jsonl
from models.evaluation import macro_f1, target_indices
from models.golden import Golden
from models.releases import CONFIG, read_manifest
from models.runtimes.choosing import fitting, precision_of
from models.runtimes.measuring import GoldenBatch, golden_batches, golden_logits
from models.runtimes.protocol import Runtime, cores
from models.softmax import softmax

REFERENCE = "onnxruntime-fp32"
LATENCY_TEXTS = 200


def runtimes_of(directory: Path) -> dict[str, Runtime]:
    """Every CPU runtime that loads the release, by name; says why of those that do not."""
    found = {}
    for candidate in fitting(precision_of(directory)):
        if candidate.device == "cpu":
            try:
                found[candidate.name] = candidate.load(directory, cores())
            except Exception as error:
                print(f"{candidate.name}: left out: {error}")
    return found


def texts_per_s(runtime: Runtime, batches: Sequence[GoldenBatch]) -> float:
    """All texts once, in all slots; the longest batches first, so that no slot waits long at the end."""
    started_s = time.perf_counter()
    with ThreadPoolExecutor(runtime.slots) as pool:
        list(pool.map(lambda batch: runtime.run(batch.input_ids, batch.attention_mask), reversed(batches)))
    return sum(len(batch.rows) for batch in batches) / (time.perf_counter() - started_s)


def alone_ms(runtime: Runtime, windows: Sequence[Sequence[int]]) -> tuple[float, float]:
    """p50 and p99 of one text alone, texts of all lengths in turn."""
    times_s = []
    for window in windows[:: max(1, len(windows) // LATENCY_TEXTS)]:
        ids = np.array([window], np.int64)
        started_s = time.perf_counter()
        runtime.run(ids, np.ones_like(ids))
        times_s.append(time.perf_counter() - started_s)
    p50, p99 = np.percentile(times_s, [50, 99])
    return 1000 * float(p50), 1000 * float(p99)


def compare(directory: Path, data: Path, rounds: int) -> dict[str, Any]:
    """All runtimes on one release and its texts."""
    examples = read_jsonl(data)
    model = Model.load(directory, "cpu", REFERENCE)
    windows = [encoded.windows[0] for encoded in model.encode([example.text for example in examples])]
    labels = read_manifest(directory).heads[0].labels
    targets = target_indices(labels, examples)
    batches = golden_batches(Golden(windows, np.zeros((len(windows), len(labels)), np.float32)), "cpu")
    runtimes = runtimes_of(directory)
    logits = {name: golden_logits(runtime, batches) for name, runtime in runtimes.items()}  # warms them up, too
    rates: dict[str, list[float]] = {name: [] for name in runtimes}
    for _ in track(range(rounds), data.parent.name):
        for name, runtime in runtimes.items():
            rates[name].append(texts_per_s(runtime, batches))
    latency_ms = {name: alone_ms(runtime, windows) for name, runtime in runtimes.items()}
    expected = logits[REFERENCE]
    tokens = sum(map(len, windows))
    return {
        "texts": len(windows),
        "mean_tokens": tokens / len(windows),
        "runtimes": {
            name: {
                "texts_per_s": median(rates[name]),
                "lowest": min(rates[name]),
                "highest": max(rates[name]),
                "ratio": median(ours / theirs for ours, theirs in zip(rates[name], rates[REFERENCE], strict=True)),
                "padding_ratio": sum(
                    runtimes[name].padded_tokens([len(windows[row]) for row in batch.rows]) for batch in batches
                )
                / tokens,
                "macro_f1": macro_f1(targets, logits[name].argmax(axis=1), labels),
                "other_labels": int((logits[name].argmax(axis=1) != expected.argmax(axis=1)).sum()),
                "max_probability_difference": float(np.abs(softmax(logits[name]) - softmax(expected)).max()),
                "single_text_p50_ms": latency_ms[name][0],
                "single_text_p99_ms": latency_ms[name][1],
            }
            for name in runtimes
        },
    }


def main() -> None:
    """Compare on every pair given, print JSON and tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pairs", nargs="+", metavar="RELEASE=DATA")
    parser.add_argument("--config", type=Path, help="the encoder's config.json, for releases without one")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for pair in arguments.pairs:
            release, _, data = pair.partition("=")
            directory = Path(release)
            if arguments.config and not (directory / CONFIG).is_file():
                directory = shutil.copytree(directory, Path(scratch) / directory.name)
                shutil.copyfile(arguments.config, directory / CONFIG)
            results[Path(release).name] = compare(directory, Path(data), arguments.rounds)
    print(json.dumps({"slots": cores(), "rounds": arguments.rounds, "sets": results}, indent=2))
    for name, result in results.items():
        table = Table(title=f"{name}: {result['texts']} texts of {result['mean_tokens']:.1f} tokens")
        for column in ("runtime", "texts/s (range)", "ratio", "macro-F1", "other labels", "largest gap", "p50 ms"):
            table.add_column(column)
        for runtime, row in result["runtimes"].items():
            table.add_row(
                runtime,
                f"{row['texts_per_s']:,.0f} ({row['lowest']:,.0f}-{row['highest']:,.0f})",
                f"{row['ratio']:.2f}",
                f"{row['macro_f1']:.4f}",
                str(row["other_labels"]),
                f"{row['max_probability_difference']:.4f}",
                f"{row['single_text_p50_ms']:.2f}",
            )
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
