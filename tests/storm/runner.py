"""A storm from its first broker to its verdict: starts everything, lets the faults come, waits until all is drained.

What must hold besides the verifier's verdict: after every fault all workers are ready again in time and something comes
out, or everything has; supervisors end with 0; workers end only with the codes that mean something.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from streams.broker import BrokerError
from streams.exits import BROKER_UNAVAILABLE, DONE, UNEXPECTED
from streams.settings import OUTPUT_TOPICS, Settings, load_settings
from streams.topics import create_topics
from tests.storm.cluster import REPLICATION, SIDES, Cluster
from tests.storm.events import MAX_EVENT_BYTES, SOURCES, TASKS, expected_outputs
from tests.storm.faults import Faults
from tests.storm.fleet import NAIVE, ROOT, Fleet
from tests.storm.generator import Generator, write_oracle
from tests.storm.offsets import group_is_whole, positions
from tests.storm.patience import Patience
from tests.storm.plan import Plan
from tests.storm.proxy import Proxy
from tests.storm.verifier import COORDINATES, JOB, ORACLE

PARTITIONS = 8
HITS = "faults.jsonl"
GROUP = "storm"
JUDGED = [name for name in OUTPUT_TOPICS if name != "surge_state"]
RECOVERY_S = 150.0  # of workers, brokers and a group, on a busy machine
DRAIN_S, NAIVE_DRAIN_S, COMMITTED_S = 180.0, 20.0, 90.0
ALLOWED_CODES = {DONE, UNEXPECTED, BROKER_UNAVAILABLE, -9, -15}


class Hang(RuntimeError):
    """Something did not come back in time."""


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
    codes: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Watcher:
    """The verifier's process, and how far it has come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.ends = 0
        self._verdict: dict[str, Any] | None = None
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, directory: Path) -> Watcher:
        """Start it on a directory with its job and the oracle."""
        with (directory / "verifier.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.storm.verifier", str(directory), cwd=ROOT,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, limit=1 << 26,
            )  # fmt: skip
        return cls(process)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            found = json.loads(line)
            self.ends = found.get("ends", self.ends)
            self._verdict = found.get("verdict")

    async def judge(self, sent: int) -> dict[str, Any]:
        """Tell it to judge, and how many events were sent; raises Hang when it ends without a verdict."""
        assert self._process.stdin is not None
        self._process.stdin.write(str(sent).encode())
        self._process.stdin.close()
        await self._reading
        await self._process.wait()
        if self._verdict is None:
            raise Hang("the verifier ended without a verdict; see verifier.log")
        return self._verdict

    async def close(self) -> None:
        """End it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading


class Storm:
    """One storm."""

    def __init__(
        self, plan: Plan, directory: Path, brokers: int, workers: int, module: str, session_s: float, rate: float
    ) -> None:
        """`module` is the workers' entry; `rate` in events a second; everything is written into `directory`."""
        self._plan, self._directory, self._workers, self._rate = plan, directory, workers, rate
        self._naive = module == NAIVE
        self._module, self._session_s = module, session_s
        self._cluster = Cluster(directory, brokers)
        self._ends = [0, *accumulate(self._ends_of(number) for number in range(plan.events))]
        self._result = Result()

    def _ends_of(self, number: int) -> int:
        if number in self._plan.poison:
            return 0 if self._naive else 1
        return 1 if self._naive else sum(one.output == "predictions" for one in expected_outputs(number))

    async def run(self, progress: Progress) -> Result:
        """All of it."""
        started_s = time.monotonic()
        try:
            self._bar = progress.add_task("starting Kafka", total=self._plan.events)
            self._progress = progress
            await asyncio.to_thread(write_oracle, self._plan, self._directory / ORACLE)
            self._cluster.start()
            settings = self._configure()
            create_topics(settings)
            await self._rage(settings)
        finally:
            self._cluster.close()
            self._result.seconds = round(time.monotonic() - started_s, 1)
        return self._result

    def _configure(self) -> Settings:
        file = self._directory / "streamgauge.toml"
        replication = min(REPLICATION, len(self._cluster.nodes))
        lines = ["[broker]", f'bootstrap = "{self._cluster.bootstrap}"', f'group = "{GROUP}"']
        lines += [f"session_timeout_s = {self._session_s:g}", "rebalance_timeout_s = 20", "delivery_timeout_s = 20"]
        lines += ["[topics]", f"partitions = {PARTITIONS}", f"replication = {replication}"]
        lines += ["[intake]", f"max_event_bytes = {MAX_EVENT_BYTES}", "[batching]", "max_slice_events = 50"]
        lines += ["[metrics]", "port = 0", "[worker]", "stall_s = 30", "shutdown_s = 25"]
        for source in SOURCES:
            lines += [f"[sources.{source}]", f"tasks = {list(TASKS[source])}"]
        file.write_text("\n".join(lines).replace("'", '"'), encoding="utf-8")
        settings = load_settings(file, env={})
        job = {
            "bootstrap": self._cluster.bootstrap,
            "group": GROUP,
            "partitions": PARTITIONS,
            "outputs": {name: getattr(settings.topics, name) for name in (["predictions"] if self._naive else JUDGED)},
            "inputs": [*SOURCES, settings.topics.observations],
            "naive": self._naive,
        }
        (self._directory / JOB).write_text(json.dumps(job), encoding="utf-8")
        return settings

    def _environment(self, settings: Settings) -> dict[str, str]:
        home = {
            "STREAMGAUGE_CONFIG": str(self._directory / "streamgauge.toml"),
            "STREAMGAUGE_HOME": str(self._directory / "home"),
        }
        if not self._naive:
            return home
        return home | {
            "NAIVE_GROUP": GROUP,
            "NAIVE_PREDICTIONS": settings.topics.predictions,
            "NAIVE_TOPICS": ",".join(SOURCES),
            "NAIVE_DATA": str(self._directory / "naive"),
        }

    async def _rage(self, settings: Settings) -> None:
        proxies = {
            side: [
                Proxy(node.ports.proxies[side], node.ports.sides[side], self._plan.seed) for node in self._cluster.nodes
            ]
            for side in SIDES
        }
        for one in (each for side in proxies.values() for each in side):
            await one.start()
        fleet = Fleet(self._cluster, self._module, self._environment(settings), self._directory)
        watcher = await Watcher.start(self._directory)
        generator = Generator(
            self._cluster.bootstrap,
            self._plan,
            {one: one for one in SOURCES},
            self._rate,
            self._directory / COORDINATES,
        )
        try:
            await fleet.scale(self._workers)
            await self._ready(fleet, "the start")
            generator.start()
            try:
                await self._inject(Faults(self._cluster, fleet, proxies), fleet, generator, watcher)
            except (Hang, BrokerError) as error:
                self._problem(f"{type(error).__name__}: {error}")
            await self._drain(generator, watcher, settings)
            await fleet.scale(0)
            self._result.verdict = await watcher.judge(generator.sent)
        finally:
            generator.stop()
            await fleet.scale(0)
            await watcher.close()
            for one in (each for side in proxies.values() for each in side):
                await one.close()
        self._ended(fleet)

    def _ended(self, fleet: Fleet) -> None:
        self._result.codes = fleet.codes
        if not self._naive:
            for code, count in fleet.codes.items():
                if code not in ALLOWED_CODES:
                    self._problem(f"{count} workers ended with code {code}")
            if any(fleet.stopped):
                self._problem(f"supervisors ended with {fleet.stopped}")

    def _problem(self, text: str) -> None:
        self._result.problems.append(text)
        self._progress.console.print(text, highlight=False)

    async def _inject(self, faults: Faults, fleet: Fleet, generator: Generator, watcher: Watcher) -> None:
        marks = [fault.at_event for fault in self._plan.faults] + [self._plan.events]
        for place, fault in enumerate(self._plan.faults):
            generator.allow(marks[place + 1])  # what flows during the fault, and no more
            await self._until(lambda mark=marks[place]: generator.sent >= mark, "sending", generator)  # type: ignore[misc]
            sent, began_s = generator.sent, time.monotonic()
            self._show(f"{place + 1}/{len(self._plan.faults)} {fault.kind}", generator)
            await faults.inject(fault)
            lasted_s = time.monotonic() - began_s
            what = f"fault {place + 1}, {fault.kind} (target {fault.target}, at event {fault.at_event})"
            before, healed_s = watcher.ends, time.monotonic()
            await self._ready(fleet, what)
            await self._until(
                lambda had=before: watcher.ends > had or watcher.ends >= self._ends[generator.sent],  # type: ignore[misc]
                f"an output after {what}",
                generator,
            )
            took_s = round(time.monotonic() - healed_s, 1)
            hit = Hit(fault.kind, fault.target, fault.at_event, sent, round(lasted_s, 1), took_s)
            self._result.hits.append(hit)
            with (self._directory / HITS).open("a", encoding="utf-8") as file:  # for whoever looks on
                file.write(json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(hit)}) + "\n")
        generator.allow(self._plan.events)

    async def _ready(self, fleet: Fleet, after: str) -> None:
        """Wait until every worker has partitions and works, or the group is whole and leaves some of them without."""
        patience = Patience(RECOVERY_S)
        while not all(states := [await one.ready() for one in fleet.machines]):
            if ended := [one.process.returncode for one in fleet.machines if one.process.poll() is not None]:
                raise Hang(f"after {after}: supervisors have ended with {ended}")
            if None not in states and any(states) and await asyncio.to_thread(self._whole, len(states)):
                return
            if patience.over:
                late = [one.log.name for one, state in zip(fleet.machines, states, strict=True) if not state]
                raise Hang(f"after {after}: not ready within {RECOVERY_S:g} s: {', '.join(late)}")
            await asyncio.sleep(0.1)

    def _whole(self, workers: int) -> bool:
        return group_is_whole(self._cluster.bootstrap, GROUP, workers, PARTITIONS * (len(SOURCES) + 1))

    async def _until(self, true: Callable[[], bool], what: str, generator: Generator) -> None:
        patience = Patience(RECOVERY_S)
        while not true():
            if generator.failed:
                raise Hang(generator.failed)
            if patience.over:
                raise Hang(f"{what}: not within {RECOVERY_S:g} s")
            self._show(None, generator)
            await asyncio.sleep(0.05)

    def _show(self, what: str | None, generator: Generator) -> None:
        bar: TaskID = self._bar
        self._progress.update(bar, completed=generator.sent, description=what)

    async def _drain(self, generator: Generator, watcher: Watcher, settings: Settings) -> None:
        """Wait until everything sent has come out, or for long nothing has; then for the last commit."""
        self._show("draining", generator)
        generator.allow(self._plan.events if not self._result.problems else generator.sent)
        if self._result.problems:
            generator.stop()
        limit_s = NAIVE_DRAIN_S if self._naive else DRAIN_S
        ends, patience = watcher.ends, Patience(limit_s)
        while generator.is_alive() or watcher.ends < self._ends[generator.sent]:
            await asyncio.sleep(0.1)
            self._show(None, generator)
            if watcher.ends != ends or generator.is_alive():
                ends, patience = watcher.ends, Patience(limit_s)
            elif patience.over:
                if not self._naive:
                    self._problem(f"drained no further: {ends} of {self._ends[generator.sent]} ends came out")
                break
        if generator.failed:
            self._problem(generator.failed)
        if not self._naive:
            await self._committed(settings)

    async def _committed(self, settings: Settings) -> None:
        """Wait until the group has committed everything; when it does not, the verifier says what is left."""
        inputs, patience = [*SOURCES, settings.topics.observations], Patience(COMMITTED_S)
        self._progress.update(self._bar, description="waiting for commits")
        while not patience.over:
            found = await asyncio.to_thread(positions, self._cluster.bootstrap, GROUP, inputs, PARTITIONS)
            if all(one.committed == one.end for one in found):
                return
            await asyncio.sleep(1)


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
