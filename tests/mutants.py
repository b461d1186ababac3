"""`python -m tests.mutants`: takes one rule after the other out of the product and plays the crash points again.

A mutant that no run notices means that the tests are blind there. Prints what caught each; with `--json` the last line
holds the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from streams.broker import KafkaBroker
from tests.crash.mutations import MUTATIONS
from tests.crash.points import ALL_POINTS
from tests.crash.runs import START_TIMEOUT_S, Report, draw, run, several
from tests.crash_points import AT_ONCE

WITHOUT = "none"  # the product as it is: nothing may be caught
SEEING = (  # points that between them need every rule
    "slice-taken", "scored", "some-acknowledged", "watermark-moved", "committed", "agent-raises", "slice-raises",
    "output-refused", "dead-letter-refused",
)  # fmt: skip


def play(bootstrap: str, folder: Path, mutants: Sequence[str], points: Sequence[str], seed: int, at_once: int) -> list[
    tuple[str, Report]
]:  # fmt: skip
    """A run for each mutant and point."""
    pairs = [(mutant, point) for mutant in mutants for point in points]

    def one(pair: tuple[str, str]) -> tuple[str, Report]:
        mutant, point = pair
        return mutant, run(bootstrap, folder, draw(point, seed, "" if mutant == WITHOUT else mutant))

    return several(one, pairs, at_once, "Mutants")


def kinds_of_evidence(report: Report) -> set[str]:
    """In which ways a run was not as it must be."""
    verdict, found = report.verdict, set[str]()
    found |= {"lost"} if verdict.lost else set()
    found |= {"wrong ids or contents"} if verdict.unexpected or verdict.different else set()
    found |= {"hung"} if any("hung" in one or "still running" in one for one in report.problems) else set()
    found |= {"exit code"} if any(one.startswith("ended with") for one in report.problems) else set()
    return found | ({"duplicates"} if any(one.endswith("duplicates") for one in report.problems) else set())


def main() -> int:
    """Run it; 1 when a mutant was not caught, or the product without a mutation was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", nargs="+", choices=[WITHOUT, *MUTATIONS], default=[WITHOUT, *MUTATIONS])
    parser.add_argument("--points", nargs="+", choices=list(ALL_POINTS), default=SEEING)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"runs side by side (default {AT_ONCE})")
    parser.add_argument("--json", action="store_true", help="figures as JSON in the last line")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="streamgauge-mutants-"))
    with KafkaBroker(start_timeout_s=START_TIMEOUT_S) as broker:
        found = play(broker.bootstrap, folder, given.mutants, given.points, given.seed, given.at_once)
    caught: dict[str, list[Report]] = {mutant: [] for mutant in given.mutants}
    for mutant, report in found:
        if report.problems:
            caught[mutant].append(report)
    for mutant, reports in caught.items():
        what = "nothing taken out" if mutant == WITHOUT else MUTATIONS[mutant].what
        ways = Counter(way for report in reports for way in kinds_of_evidence(report))
        where = ", ".join(report.case for report in reports)
        print(f"{mutant} ({what}): caught in {len(reports)} of {len(given.points)} runs {dict(ways)}: {where}")
    alive = [mutant for mutant, reports in caught.items() if not reports and mutant != WITHOUT]
    last = {
        "mutants": len(caught) - (WITHOUT in caught),
        "runs": len(found),
        "not_caught": alive,
        "caught_in": {mutant: len(reports) for mutant, reports in caught.items()},
        "lost": {mutant: sum(report.verdict.lost for report in reports) for mutant, reports in caught.items()},
    }
    print(json.dumps(last) if given.json else f"not caught: {', '.join(alive) or 'none'}")
    return 1 if alive or caught.get(WITHOUT) else 0


if __name__ == "__main__":
    sys.exit(main())
