"""`python -m tests.shutdown`: workers on real Kafka are told to stop at awkward moments; nothing is lost.

Prints a line per stop; with `--json` the last line holds the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from streams.broker import KafkaBroker
from tests.crash.runs import START_TIMEOUT_S, Report, several
from tests.crash.stops import STOPS, play
from tests.crash_points import AT_ONCE


def stops(bootstrap: str, folder: Path, names: Sequence[str], seeds: Sequence[int], at_once: int) -> list[Report]:
    """A stop of each kind for each seed."""
    pairs = [(name, seed) for seed in seeds for name in names]
    return several(lambda pair: play(bootstrap, folder, *pair), pairs, at_once, "Stops")


def main() -> int:
    """Run it; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each case")
    parser.add_argument("--cases", nargs="+", choices=list(STOPS), default=list(STOPS))
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"runs side by side (default {AT_ONCE})")
    parser.add_argument("--json", action="store_true", help="figures as JSON in the last line")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="streamgauge-stops-"))
    with KafkaBroker(start_timeout_s=START_TIMEOUT_S) as broker:
        reports = stops(broker.bootstrap, folder, given.cases, range(given.seeds), given.at_once)
    for one in reports:
        print(f"{one.case} seed {one.seed}: {', '.join(one.kinds)}, {one.verdict.duplicates} duplicates"
              f"{''.join(f'; {problem}' for problem in one.problems)}")  # fmt: skip
    found = {
        "cases": len(given.cases),
        "runs": len(reports),
        "lost": sum(one.verdict.lost for one in reports),
        "wrong": sum(one.verdict.unexpected + one.verdict.different for one in reports),
        "duplicates": sum(one.verdict.duplicates for one in reports),
        "problems": sum(bool(one.problems) for one in reports),
    }
    print(json.dumps(found) if given.json else "\n".join(f"{key}: {value}" for key, value in found.items()))
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
