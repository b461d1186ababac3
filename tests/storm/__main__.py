"""Numbered events through real Kafka while everything around the worker breaks, replayable by seed.

    python -m tests.storm --broker kafka --events 20000 --faults 10 --poison 400 --seed 1 --json

The last line is one JSON object; the exit code is 0 only if every invariant held: no event lost, dead letters exactly
the planted ones, every output as the oracle says, the order of each key kept, everything committed, no hang.

--only process (as above, one broker), broker, network, rebalance, machine: those faults alone; all: every kind, on
three brokers. --worker-module runs another worker than the product's: `python -m MODULE` under the real supervisor,
with its settings in `$STREAMGAUGE_CONFIG` and the environment. So a worker with a rule taken out shows whether the
storm sees what it loses: build it on `tests.storm.worker`, on whose model and signals the storm counts. --control naive
runs an agent on Faust's own `take()` and exits with 0 only if the storm saw it lose events.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.storm.fleet import NAIVE, WORKER
from tests.storm.plan import GROUPS, make_plan
from tests.storm.report import Result, losses, replay, summary
from tests.storm.runner import Storm

SECONDS_PER_FAULT = 8.0  # of events, when no rate is given: what flows from one fault to the next
LEAST_RATE = 50.0


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.storm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--broker", choices=["kafka"], default="kafka")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--faults", type=int, default=10)
    parser.add_argument("--poison", type=int, default=400)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=[*GROUPS, "all"], default="process")
    parser.add_argument("--brokers", type=int, choices=[1, 3], default=None)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--session-s", type=float, default=6.0, help="the group's session time-out")
    parser.add_argument("--rate", type=float, default=None, help="events a second")
    parser.add_argument("--worker-module", default=WORKER)
    parser.add_argument("--control", choices=["naive"], default=None)
    parser.add_argument("--directory", type=Path, default=None, help="kept; else a temporary one, kept on failure")
    parser.add_argument("--json", action="store_true", help="print one JSON object last on standard output")
    return parser.parse_args()


def main() -> int:
    """Run a storm; returns the exit code."""
    chosen = options()
    seed = random.SystemRandom().randrange(1 << 31) if chosen.seed is None else chosen.seed
    console = Console(stderr=True)
    console.print(f"seed {seed}", highlight=False)
    directory = chosen.directory or Path(tempfile.mkdtemp(prefix="storm-"))
    directory.mkdir(parents=True, exist_ok=True)
    plan = make_plan(seed, chosen.events, chosen.faults, chosen.poison, chosen.only, chosen.session_s)
    few = chosen.only in ("process", "machine")
    rate = chosen.rate or max(LEAST_RATE, chosen.events / (chosen.faults + 1) / SECONDS_PER_FAULT)
    storm = Storm(
        plan, directory.resolve(), chosen.brokers or (1 if few else 3), chosen.workers or (2 if few else 3),
        NAIVE if chosen.control else chosen.worker_module, chosen.session_s, rate,
    )  # fmt: skip
    columns = (TextColumn("{task.description:>24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        result = asyncio.run(storm.run(progress))
    found = summary(plan, result)
    lines = losses(plan, result)
    (directory / "result.json").write_text(
        json.dumps({**found, "verdict": result.verdict, "hits": [asdict(one) for one in result.hits]}, indent=1)
    )
    code = _code(result, bool(found["holds"]), chosen.control is not None)
    if code:
        for line in (*result.problems, *lines):
            console.print(line, highlight=False, soft_wrap=True)
        console.print(f"logs and files: {directory}", highlight=False, soft_wrap=True)
        console.print(f"again: {replay(_with_seed(sys.argv[1:], seed))}", highlight=False, soft_wrap=True)
    elif chosen.directory is None:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(found) if chosen.json else ", ".join(f"{name} {value}" for name, value in found.items()))
    return code


def _code(result: Result, holds: bool, control: bool) -> int:
    """A control that lost nothing has failed: the storm is blind."""
    if control:
        return 0 if result.verdict.get("lost") else 1
    return 0 if holds else 1


def _with_seed(arguments: list[str], seed: int) -> list[str]:
    return arguments if "--seed" in arguments else [*arguments, "--seed", str(seed)]


if __name__ == "__main__":
    sys.exit(main())
