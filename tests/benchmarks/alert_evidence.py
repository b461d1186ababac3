"""What explaining alerts costs the events that have none: latency and throughput of a scorer, with and without.

    python -m tests.benchmarks.alert_evidence --release DIR --task risk --texts FILE.jsonl --json

Slices of texts come at a steady rate, a share of them alerts; each is submitted, scored, decided and (or not) explained
as a worker does it, without Kafka. First the highest rate is found by having all slices in flight at once; then shares
of it are offered. Off and on take turns, so that a change of the machine's load meets both.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.classifier import Model
from models.datasets import read_jsonl
from models.tasks import LabelPolicy, Task
from streams.adaptive import Bounds
from streams.decisions import decide
from streams.device import Device
from streams.events import Coordinates, Event, Output
from streams.evidence import AlertEvidence
from streams.live import serve
from streams.scoring import Scorer, ScoringFailed
from streams.settings import load_settings

SLICE_EVENTS = 16
LOADS = (0.1, 0.3, 0.7)
PATIENCE_S = 0.25
SURGE = load_settings(env={}).surge


@dataclass
class Seen:
    """Seconds from a slice's arrival to its outputs, and of the alerts how many were explained."""

    quiet_s: list[float] = field(default_factory=list)
    alerting_s: list[float] = field(default_factory=list)
    alerts: int = 0
    explained: int = 0


async def one_slice(
    scorer: Scorer, evidence: AlertEvidence | None, texts: Sequence[str], first: int, seen: Seen
) -> None:
    """A slice's way from its arrival to its outputs."""
    arrived_s = time.perf_counter()
    events = [
        Event("bench", Coordinates("bench", 0, first + place), "e", "2026-01-01T00:00:00.000Z", 0.0, text, "k")
        for place, text in enumerate(texts)
    ]
    outcomes = await (await scorer.submit(texts))
    outputs: Sequence[Output] = []
    for event, outcome in zip(events, outcomes, strict=True):
        if isinstance(outcome, ScoringFailed):
            raise RuntimeError(outcome.error)
        pairs = list(zip(outcome[0].served, outcome[1], strict=True))
        outputs = [*outputs, *decide(event, pairs, SURGE, "2026-01-01T00:00:00.000Z")]
    if evidence is not None:
        outputs = await evidence.added(outputs, events, [scorer])
    alerts = [output.value for output in outputs if output.name == "alerts"]
    (seen.alerting_s if alerts else seen.quiet_s).append(time.perf_counter() - arrived_s)
    seen.alerts += len(alerts)
    seen.explained += sum(isinstance(alert, dict) and "words" in alert["evidence"] for alert in alerts)


async def offered(
    scorer: Scorer, explain: bool, texts: Sequence[str], slices: int, rate: float | None
) -> tuple[Seen, float]:
    """So many slices at a rate (events a second; None: all at once): what was seen, and the seconds it took."""
    seen, evidence = Seen(), AlertEvidence(PATIENCE_S) if explain else None
    started_s = time.perf_counter()
    running = []
    for number in range(slices):
        if rate is not None:
            await asyncio.sleep(max(0.0, started_s + number * SLICE_EVENTS / rate - time.perf_counter()))
        its = [texts[(number * SLICE_EVENTS + place) % len(texts)] for place in range(SLICE_EVENTS)]
        running.append(asyncio.create_task(one_slice(scorer, evidence, its, number * SLICE_EVENTS, seen)))
    await asyncio.gather(*running)
    return seen, time.perf_counter() - started_s


def told(seen: Seen, seconds: float, events: int) -> dict[str, Any]:
    """The figures of one run."""
    figures: dict[str, Any] = {"events_per_s": round(events / seconds), "alerts": seen.alerts}
    figures["explained"] = round(seen.explained / seen.alerts, 3) if seen.alerts else None
    for name, times_s in (("quiet", seen.quiet_s), ("alerting", seen.alerting_s)):
        if times_s:
            p50, p99 = np.percentile(times_s, [50, 99])
            figures |= {f"{name}_p50_ms": round(1000 * float(p50), 1), f"{name}_p99_ms": round(1000 * float(p99), 1)}
    return figures


async def measure(release: Path, task: str, label: str, threshold: float, texts: Sequence[str], slices: int) -> Any:
    """All runs, off and on in turn."""
    policy = Task(name=task, labels={label: LabelPolicy(alert_above=threshold)})
    scorer = Scorer(serve(Model.load(release), [policy]), Bounds(1024, 256, 65_536, 0.005, 0.2))
    device = Device([scorer], scorer.loaded.model.slots)
    loop = asyncio.create_task(device.run())
    found: dict[str, Any] = {"release": scorer.loaded.model.release, "runtime": scorer.loaded.model.runtime}
    await offered(scorer, False, texts, slices, None)
    full = {explain: await offered(scorer, explain, texts, slices, None) for explain in (False, True)}
    rate = slices * SLICE_EVENTS / full[False][1]
    for explain, (seen, seconds) in full.items():
        found[f"full load, {'on' if explain else 'off'}"] = told(seen, seconds, slices * SLICE_EVENTS)
    for load in LOADS:
        for explain in (False, True):
            seen, seconds = await offered(scorer, explain, texts, slices, load * rate)
            found[f"{load:.0%} load, {'on' if explain else 'off'}"] = told(seen, seconds, slices * SLICE_EVENTS)
    loop.cancel()
    device.close()
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--label", required=True, help="the label that alerts")
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    texts = [example.text for example in read_jsonl(given.texts)]
    work = measure(given.release, given.task, given.label, given.threshold, texts, given.slices)
    figures = asyncio.run(work)
    print(json.dumps(figures) if given.json else "\n".join(f"{name:20} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
