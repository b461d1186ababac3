"""How often the gate and the live comparison decide wrongly, and how soon they decide rightly, on simulated answers.

python -m tests.benchmarks.error_rates --runs 1000 --json
"""

from __future__ import annotations

import argparse
import json
import math

import numpy as np
from rich.progress import track

from models.learning.paired import mcnemar
from tests.models.learning.simulated import MANY, RARE, SPAM, TONE, e_table, streams, world, world_at_the_margin

LIMIT = math.log(20)
LABELS = 10_000


def worse_passes(runs: int) -> dict[str, float]:
    """The share of candidates that pass on the hold-out though their macro-F1 is lower by just the margin of 0.02."""
    kinds = {
        "two labels, 800 texts": (SPAM, 0.02, 0.005, 800),
        "three labels, 1,000": (TONE, 0.1, 0.01, 1000),
        "three, one rare, none repaired, 300": (RARE, 0.1, 0.0, 300),
        "eight, 300": (MANY, 0.1, 0.005, 300),
    }
    found = {}
    for name, (shares, both_wrong, gained, texts) in kinds.items():
        boundary, rng = world_at_the_margin(shares, both_wrong, gained, 0.02), np.random.default_rng(1)
        found[name] = sum(boundary.passes(rng, texts, 0.02) for _ in track(range(runs), name)) / runs
    return found


def alike_passes(runs: int) -> dict[str, float]:
    """The share of candidates that pass on the hold-out, as good as the champion; answers differ on 2% of the texts."""
    alike = world(TONE, 0.05, 0.01, 0.01)
    rng = np.random.default_rng(2)
    return {
        f"{texts} texts": sum(alike.passes(rng, texts, 0.02) for _ in track(range(runs), f"{texts} texts")) / runs
        for texts in (300, 1000, 2000)
    }


def live_errors(runs: int) -> dict[str, float]:
    """As good as the champion, looked at after each of 10,000 labels; answers differ on 10% of the texts."""
    table, wrong, control, early = e_table(900), [0, 0], 0, 30
    p_values = {(g, k): mcnemar(g, k) for g in range(120) for k in range(120)}
    for gained, lost in track(streams(7, runs, 0.05, 0.05, LABELS), "live", total=runs):
        wrong[0] += bool((table[gained, lost] >= LIMIT).any())
        wrong[1] += bool((table[lost, gained] >= LIMIT).any())
        pairs = {*zip(gained[early:1000].tolist(), lost[early:1000].tolist(), strict=True)}
        control += any(p_values[pair] <= 0.05 for pair in pairs)
    return {
        "promoted": wrong[0] / runs, "rolled back": wrong[1] / runs,
        "promoted by McNemar after each of only 1,000 labels": control / runs,
    }  # fmt: skip


def labels_needed(runs: int) -> dict[str, float]:
    """The median number of labels to a promotion, by the shares of texts gained and lost."""
    found = {}
    for gained, lost in ((0.15, 0.0), (0.1, 0.04), (0.06, 0.04)):
        table, needed = e_table(1600), []
        for plus, minus in streams(5, runs, gained, lost, LABELS):
            passed = table[plus, minus] >= LIMIT
            needed.append(int(passed.argmax()) + 1 if passed.any() else LABELS)
        found[f"{gained:g} gained, {lost:g} lost"] = float(np.median(needed))
    return found


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = {
        "worse_passes": worse_passes(given.runs),
        "alike_passes": alike_passes(given.runs),
        "live_errors": live_errors(given.runs),
        "labels_needed": labels_needed(min(given.runs, 300)),
    }
    print(json.dumps(found) if given.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
