"""A storm from its first broker to its verdict: starts everything, lets the faults come, waits until all is drained.

What must hold besides the verifier's verdict: after every fault all workers are ready again in time, and as much
has come out as was sent until then; workers end only with the codes that mean something; supervisors that are told to
stop end with 0, unless brokers or lines fail meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

from rich.progress import Progress, TaskID

from streams.broker import BrokerError
from streams.exits import BROKER_UNAVAILABLE, DONE, UNEXPECTED
from streams.settings import OUTPUT_TOPICS, Settings, load_settings
from streams.topics import create_topics
from tests.storm.cluster import REPLICATION, SIDES, Cluster, Node, Side
from tests.storm.events import MAX_EVENT_BYTES, SOURCES, TASKS, expected_outputs
from tests.storm.faults import Faults
from tests.storm.fleet import NAIVE, Fleet
from tests.storm.generator import Generator, write_oracle
from tests.storm.offsets import group_is_whole, positions
from tests.storm.patience import Patience
from tests.storm.plan import DECKS, Fault, Plan
from tests.storm.proxy import Proxy
from tests.storm.report import Hit, Result
from tests.storm.verifier import COORDINATES, JOB, ORACLE
from tests.storm.watcher import Hang, Watcher

PARTITIONS = 8
HITS = "faults.jsonl"
GROUP = "storm"
JUDGED = [name for name in OUTPUT_TOPICS if name not in ("surge_state", "shed")]  # nobody sheds in a storm
RECOVERY_S = 240.0  # of workers, brokers and a group, on a busy machine
DRAIN_S, NAIVE_DRAIN_S, COMMITTED_S = 180.0, 20.0, 90.0
ALLOWED_CODES = {DONE, UNEXPECTED, BROKER_UNAVAILABLE, -9, -15}
CALM = {*DECKS["process"], *DECKS["rebalance"]}  # with brokers and lines that fail, a stop may meet such a failure


@dataclass(frozen=True)
class _Scene:
    fleet: Fleet
    faults: Faults
    generator: Generator
    watcher: Watcher


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
        proxies = {side: [self._proxy(node, side) for node in self._cluster.nodes] for side in SIDES}
        every = [one for side in proxies.values() for one in side]
        for one in every:
            await one.start()
        fleet = Fleet(self._cluster, self._module, self._environment(settings), self._directory)
        topics = {source: settings.sources[source].topic for source in SOURCES}
        generator = Generator(self._cluster.bootstrap, self._plan, topics, self._rate, self._directory / COORDINATES)
        watcher = await Watcher.start(self._directory)
        scene = _Scene(fleet, Faults(self._cluster, fleet, proxies), generator, watcher)
        try:
            await self._through_all_faults(scene)
            await self._drain(scene, settings)
            await fleet.scale(0)
            self._result.verdict = await watcher.judge(generator.sent)
        finally:
            generator.stop()
            await fleet.scale(0)
            await watcher.close()
            for one in every:
                await one.close()
        self._ended(fleet)

    def _proxy(self, node: Node, side: Side) -> Proxy:
        return Proxy(node.ports.proxies[side], node.ports.sides[side], self._plan.seed)

    def _ended(self, fleet: Fleet) -> None:
        self._result.codes, self._result.stops = fleet.codes, fleet.stopped
        if not self._naive:
            for code, count in fleet.codes.items():
                if code not in ALLOWED_CODES:
                    self._problem(f"{count} workers ended with code {code}")
            allowed = {DONE} if self._plan.kinds <= CALM else {DONE, UNEXPECTED, BROKER_UNAVAILABLE}
            if not fleet.stopped.keys() <= allowed:
                self._problem(f"supervisors ended with {dict(fleet.stopped)}")

    def _problem(self, text: str) -> None:
        self._result.problems.append(text)
        self._progress.console.print(text, highlight=False)

    async def _through_all_faults(self, scene: _Scene) -> None:
        """All faults, one after another; a problem ends it, for a hang does not go away by more of them."""
        faults = self._plan.faults
        try:
            await scene.fleet.scale(self._workers)
            await self._ready(scene.fleet, "the start")
            scene.generator.start()
            for place, fault in enumerate(faults):
                following = faults[place + 1].at_event if place + 1 < len(faults) else self._plan.events
                scene.generator.allow(following)  # what flows during the fault, and no more
                await self._strike(fault, f"{place + 1}/{len(faults)} {fault.kind}", scene)
            scene.generator.allow(self._plan.events)
        except (Hang, BrokerError) as error:
            self._problem(f"{type(error).__name__}: {error}")

    async def _strike(self, fault: Fault, name: str, scene: _Scene) -> None:
        """One fault, and back to work."""
        generator, watcher = scene.generator, scene.watcher
        await self._until(lambda: generator.sent >= fault.at_event, "sending", generator)
        sent, began_s = generator.sent, time.monotonic()
        self._show(name, generator)
        await scene.faults.inject(fault)
        healed_s = time.monotonic()
        what = f"fault {name} (target {fault.target}, at event {fault.at_event})"
        await self._ready(scene.fleet, what)
        due = 0 if self._naive else self._ends[generator.sent]  # a naive worker never has all
        await self._until(lambda: watcher.ends >= due, f"what was sent before the end of {what}", generator)
        lasted_s, recovered_s = round(healed_s - began_s, 1), round(time.monotonic() - healed_s, 1)
        hit = Hit(fault.kind, fault.target, fault.at_event, sent, lasted_s, recovered_s)
        self._result.hits.append(hit)
        with (self._directory / HITS).open("a", encoding="utf-8") as file:  # for whoever looks on
            file.write(json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(hit)}) + "\n")

    async def _ready(self, fleet: Fleet, after: str) -> None:
        """Wait until every worker has partitions and works, or the group is whole and leaves some of them without."""
        patience = Patience(RECOVERY_S)
        while not all(states := [await one.ready() for one in fleet.machines]):
            if ended := [one.process.returncode for one in fleet.machines if one.process.poll() is not None]:
                raise Hang(f"after {after}: supervisors have ended with {ended}")
            if None not in states and await asyncio.to_thread(self._whole, len(states), sum(map(bool, states))):
                return
            if patience.over:
                late = [one.log.name for one, state in zip(fleet.machines, states, strict=True) if not state]
                raise Hang(f"after {after}: not ready within {RECOVERY_S:g} s: {', '.join(late)}")
            await asyncio.sleep(0.1)

    def _whole(self, workers: int, ready: int) -> bool:
        return group_is_whole(self._cluster.bootstrap, GROUP, workers, ready, PARTITIONS * (len(SOURCES) + 1))

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

    async def _drain(self, scene: _Scene, settings: Settings) -> None:
        """Wait until everything sent has come out, or for long nothing has; then for the last commit."""
        generator, watcher = scene.generator, scene.watcher
        self._show("draining", generator)
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
