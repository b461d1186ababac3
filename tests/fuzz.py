"""`python -m tests.fuzz`: hostile inputs through the intake; each comes to exactly one end, in bounded time.

Prints the first inputs that did not; with `--json` the last line holds the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import track

from tests.hostile.inputs import hostile_records
from tests.hostile.ordeal import MAX_GROWTH_MIB, Gauntlet, resident_mib

CHUNK = 500


def fuzz(inputs: int, seed: int, quiet: bool = False) -> dict[str, Any]:
    """Run so many inputs; what became of them."""
    gauntlet, started_s = Gauntlet(), time.monotonic()
    sources = list(gauntlet.settings.sources)
    chunks = track(range(0, inputs, CHUNK), "Hostile inputs", console=Console(stderr=True, quiet=quiet))
    settled_mib = 0.0
    for number, first in enumerate(chunks):
        source = sources[number % len(sources)]
        count = min(CHUNK, inputs - first)
        gauntlet.run(source, hostile_records(count, seed * 1_000_003 + number, source))
        if number == len(sources) * 4:  # everything has been seen once or more, the largest too
            settled_mib = resident_mib()
    found = asdict(gauntlet.found) | {"seed": seed, "seconds": round(time.monotonic() - started_s, 1)}
    found["slowest_ms"] = round(found["slowest_ms"], 1)
    found["growth_mib"] = round(resident_mib() - settled_mib, 1) if settled_mib else 0.0
    if found["growth_mib"] > MAX_GROWTH_MIB:
        found["problems"].append(f"the process grew by {found['growth_mib']} MiB")
    return found


def main() -> int:
    """Run it; 1 when an input had no proper end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="figures as JSON in the last line")
    given = parser.parse_args()
    found = fuzz(given.inputs, given.seed)
    problems = found.pop("problems")
    for one in problems:
        print(one)
    print(json.dumps(found) if given.json else "\n".join(f"{key}: {value}" for key, value in found.items()))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
