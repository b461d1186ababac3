"""What a storm found, for a machine and for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.storm.plan import Plan


@dataclass
class Hit:
    """A fault that was carried out."""

    kind: str
    target: int
    at_event: int
    sent: int
    lasted_s: float
    recovered_s: float


@dataclass
class Result:
    """All that a storm found."""

    verdict: dict[str, Any] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)  # of workers
    stops: Counter[int] = field(default_factory=Counter)  # of supervisors
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def summary(plan: Plan, result: Result) -> dict[str, object]:
    """The last line of a storm."""
    verdict = result.verdict
    return {
        "events": plan.events,
        "faults": len(result.hits),
        "lost": verdict.get("lost"),
        "dead_letters": verdict.get("dead_letters"),
        "duplicates": verdict.get("duplicates"),
        "seconds": result.seconds,
        "seed": plan.seed,
        "outputs": verdict.get("outputs"),
        "kinds": dict(Counter(hit.kind for hit in result.hits)),
        "worker_exits": {str(code): count for code, count in sorted(result.codes.items())},
        "supervisor_exits": {str(code): count for code, count in sorted(result.stops.items())},
        "slowest_recovery_s": max((hit.recovered_s for hit in result.hits), default=0.0),
        "problems": result.problems,
        "holds": bool(verdict.get("holds")) and not result.problems,
    }


def losses(plan: Plan, result: Result) -> list[str]:
    """What was lost or wrong, each on a line with the fault before it; empty when all is well."""
    verdict = result.verdict
    found = []
    for one in verdict.get("losses", ()):
        before = [hit for hit in result.hits if hit.at_event <= one["n"]]
        fault = f"after {before[-1].kind} at event {before[-1].at_event}" if before else "before any fault"
        found.append(f"lost: event {one['n']} at {one['at']}, {fault}: {', '.join(one['missing'])}")
    for name in ("wrong", "wrong_dead_letters", "changed", "disordered", "uncommitted"):
        found += [f"{name}: {line}" for line in verdict.get(name, ())]
    return found


def replay(arguments: Sequence[str]) -> str:
    """The command that does it again."""
    return " ".join(["python", "-m", "tests.storm", *arguments])
