"""`python -m tests.crash_points`: a worker on real Kafka is struck at every step of an event, and nothing may be lost.

Prints a line per point; with `--json` the last line holds the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streams.broker import KafkaBroker
from tests.crash.points import ALL_POINTS, POINTS
from tests.crash.runs import START_TIMEOUT_S, Report, draw, run, several

AT_ONCE = 4


def strike(bootstrap: str, folder: Path, names: Sequence[str], seeds: Sequence[int], at_once: int) -> list[Report]:
    """A run for each point and seed."""
    cases = [draw(name, seed) for seed in seeds for name in names]
    return several(lambda case: run(bootstrap, folder, case), cases, at_once, "Crash points")


def figures(reports: Sequence[Report]) -> dict[str, Any]:
    """What is claimed of a set of runs."""
    return {
        "points": len({one.case for one in reports}),
        "runs": len(reports),
        "faults": sum(len(one.kinds) for one in reports),
        "lost": sum(one.verdict.lost for one in reports),
        "wrong": sum(one.verdict.unexpected + one.verdict.different for one in reports),
        "dead_letters": sum(one.verdict.dead_letters for one in reports),
        "duplicates": sum(one.verdict.duplicates for one in reports),
        "most_duplicates": max(one.verdict.duplicates for one in reports),
        "surges": sum(one.verdict.surges for one in reports),
        "problems": sum(bool(one.problems) for one in reports),
    }


def main() -> int:
    """Run it; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each point")
    parser.add_argument("--first-seed", type=int, default=0, help="seeds count from here")
    parser.add_argument("--points", nargs="+", choices=sorted(ALL_POINTS), help="only these (default: all)")
    parser.add_argument("--twelve", action="store_true", help="only the twelve steps of an event")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"runs side by side (default {AT_ONCE})")
    parser.add_argument("--json", action="store_true", help="figures as JSON in the last line")
    given = parser.parse_args()
    names = given.points or list(POINTS if given.twelve else ALL_POINTS)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    folder = Path(tempfile.mkdtemp(prefix="streamgauge-crash-"))
    with KafkaBroker(start_timeout_s=START_TIMEOUT_S) as broker:
        reports = strike(broker.bootstrap, folder, names, seeds, given.at_once)
    for one in reports:
        print(f"{one.case} seed {one.seed} {'+'.join(one.kinds)}: {one.seconds} s, {one.verdict.duplicates} duplicates"
              f"{''.join(f'; {problem}' for problem in one.problems)}")  # fmt: skip
    found = figures(reports)
    print(json.dumps(found) if given.json else "\n".join(f"{key}: {value}" for key, value in found.items()))
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
