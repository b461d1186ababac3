"""Runs everything, interleaved: round by round, each system once, in an order that turns with the rounds."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from streams.bench.arena import Arena, Field
from streams.bench.contestants import CEILING, Contestant
from streams.bench.job import Job, JobKind
from streams.bench.load import Loader, LoadFailed
from streams.bench.observe import Outputs, Stalled, verify, watch
from streams.bench.running import SIDE_TOPICS, Ended, Running
from streams.bench.statistics import SPARE_SHARE, Rate, Tail, arrivals_s, rate, rotated, spread, tail
from streams.bench.texts import events
from streams.children import free_ports

LOADS = (30, 70, 95)  # percent of a system's own median maximum
LOAD_S, WARM_SHARE = 12.0, 1 / 6  # how long each load lasts, and how much of its beginning does not count
_STALL_S = 90.0  # a start with a model takes tens of seconds on a small machine
_PROBE_TEXTS = 20
_MEAN_EVENT_BYTES = 512
_SLOW = 10  # a slow system's share of the events is one in so many
# What systems that want a batch size and a time bound are given.
_BATCHES = {"stream": (1000, 20.0), "model": (64, 20.0)}


@dataclass(frozen=True)
class Plan:
    """One job for all systems. `texts` has the spare ones too; `release` is a directory, empty for `stream`."""

    kind: JobKind
    contestants: Sequence[Contestant]
    texts: Sequence[str]
    rounds: int
    task: str
    release: str = ""
    runtime: str = "auto"


@dataclass
class Score:
    """What one system did in one job; `failed` says why it was taken out."""

    rates: list[Rate] = field(default_factory=list)
    tails: dict[int, Tail] = field(default_factory=dict)
    padding_ratios: list[float] = field(default_factory=list)
    missing: int = 0
    duplicates: int = 0
    failed: str | None = None

    @property
    def events_per_s(self) -> float | None:
        """Median of the rounds."""
        return spread([one.events_per_s for one in self.rates]).median if self.rates else None


class Watcher(Protocol):
    """Is told how it goes, to show it."""

    def started(self, what: str, total: int) -> None:
        """A run begins, which should give so many outputs."""
        ...

    def counted(self, count: int) -> None:
        """So many are there."""
        ...


class Driver:
    """Runs plans on one broker."""

    def __init__(self, arena: Arena, watcher: Watcher) -> None:
        self._arena, self._watcher = arena, watcher

    def throughput(self, plan: Plan) -> dict[str, Score]:
        """The rounds of a plan: by system, its rates and what became of its events."""
        scores = {one.name: Score() for one in plan.contestants}
        everything = events(plan.texts)
        for round_number in range(plan.rounds):
            for system in rotated(plan.contestants, round_number):
                score = scores[system.name]
                slow = system.slow and plan.kind == "stream"
                values = everything[: len(everything) // _SLOW] if slow else everything
                if score.failed is None:
                    self._watcher.started(f"{plan.kind} {round_number + 1}/{plan.rounds} {system.name}", len(values))
                    with _failing(score):
                        self._backlog(plan, system, values, score)
        return scores

    def _backlog(self, plan: Plan, system: Contestant, values: list[bytes], score: Score) -> None:
        """One run: all events are there before the system starts."""
        with self._ready(plan, system) as (job, there):
            running = Running(system, job)
            if system is CEILING:
                job.texts_file.write_text(json.dumps(plan.texts), encoding="utf-8")
                count = running.tally.count
            else:
                Loader(there.bootstrap, there.input_topic, there.partitions).fill(values)
                count = Outputs(there.bootstrap, there.output_topic, there.partitions).count
            count()  # the first request to a broker waits for new topics to be known
            with running:
                samples = watch(count, running.pid, len(values), _STALL_S, running.alive, self._watcher.counted)
                score.rates.append(rate(samples, int(len(values) / (1 + SPARE_SHARE))))
                if plan.kind == "model" and (padding := running.padding_ratio()) is not None:
                    score.padding_ratios.append(padding)
            if system is not CEILING:
                self._check(there, [f"e{place}" for place in range(len(values))], score)

    def _check(self, there: Field, ids: list[str], score: Score) -> dict[str, int]:
        """Read the outputs of a run that is over; when each came first."""
        records = Outputs(there.bootstrap, there.output_topic, there.partitions).count()
        verdict = verify(there.bootstrap, there.output_topic, there.partitions, records, ids)
        score.missing += verdict.missing
        score.duplicates += verdict.duplicates
        return dict(verdict.came_ms)

    def latency(self, plan: Plan, scores: dict[str, Score]) -> None:
        """Each system at LOADS of its own maximum, one after the other in one process; fills in the scores' tails."""
        for system in plan.contestants:
            score = scores[system.name]
            if system is not CEILING and score.failed is None and score.events_per_s:
                self._watcher.started(f"latency {system.name}", len(LOADS))
                with _failing(score), self._ready(plan, system) as (job, there):
                    self._paced(plan, system, job, there, score)

    def _paced(self, plan: Plan, system: Contestant, job: Job, there: Field, score: Score) -> None:
        loader = Loader(there.bootstrap, there.input_topic, there.partitions)
        outputs = Outputs(there.bootstrap, there.output_topic, there.partitions)
        sent = events(plan.texts[: there.partitions], "warm")
        loader.fill(sent)
        ids, due_ms = [f"warm{place}" for place in range(len(sent))], dict[str, int]()
        with Running(system, job) as running:

            def drain() -> None:
                watch(outputs.count, running.pid, len(ids), _STALL_S, running.alive, lambda _: None)

            drain()
            most_s = self._most_s(score.events_per_s or 0)
            for done, load in enumerate(LOADS):
                times = arrivals_s((score.events_per_s or 0) * load / 100, most_s)
                texts = [plan.texts[place % len(plan.texts)] for place in range(len(times))]
                names = [f"at{load}-{place}" for place in range(len(times))]
                due_ms |= dict(zip(names, loader.pace(events(texts, f"at{load}-"), times), strict=True))
                ids += names
                drain()
                self._watcher.counted(done + 1)
        came_ms = self._check(there, ids, score)
        for load in LOADS:
            ours = [name for name in due_ms if name.startswith(f"at{load}-") and name in came_ms]
            warm_ms = min(due_ms[name] for name in ours) + most_s * WARM_SHARE * 1000
            score.tails[load] = tail([came_ms[name] - due_ms[name] for name in ours if due_ms[name] >= warm_ms])

    def _most_s(self, events_per_s: float) -> float:
        """How long a load may last: shorter than LOAD_S where the broker could not hold all of them."""
        most = self._arena.most_events("model", _MEAN_EVENT_BYTES)
        return LOAD_S if most is None else min(LOAD_S, most / (events_per_s * sum(LOADS) / 100))

    def probe(self, plan: Plan) -> dict[str, Any]:
        """What "auto" gives here: runtime, device and slots, so that every system can be given the same."""
        texts = list(plan.texts[:_PROBE_TEXTS])
        self._watcher.started("choosing the runtime", len(texts))
        with self._ready(plan, CEILING) as (job, _):
            job.texts_file.write_text(json.dumps(texts), encoding="utf-8")
            with Running(CEILING, job) as running:
                watch(running.tally.count, running.pid, len(texts), _STALL_S, running.alive, self._watcher.counted)
                return running.model_info()

    @contextlib.contextmanager
    def _ready(self, plan: Plan, system: Contestant) -> Iterator[tuple[Job, Field]]:
        """A directory, topics and a job for one run."""
        size, wait_ms = _BATCHES[plan.kind]
        topics: contextlib.AbstractContextManager[Field] = (
            contextlib.nullcontext(Field("", "none", 0))
            if system is CEILING
            else self._arena.field(SIDE_TOPICS if system.role == "ours" else ())
        )
        with tempfile.TemporaryDirectory(prefix="streamgauge-bench-") as directory, topics as there:
            yield (
                Job(
                    kind=plan.kind,
                    directory=directory,
                    bootstrap=there.bootstrap,
                    input_topic=there.input_topic,
                    output_topic=there.output_topic,
                    group=there.name,
                    partitions=there.partitions,
                    task=plan.task,
                    release=plan.release,
                    runtime=plan.runtime if system.role == "ours" else plan.runtime.removesuffix("-packed"),
                    batch_events=size,
                    batch_wait_ms=wait_ms,
                    metrics_port=free_ports(1)[0],
                ),
                there,
            )


@contextlib.contextmanager
def _failing(score: Score) -> Iterator[None]:
    """What a system does wrong takes it out, and the others go on."""
    try:
        yield
    except (Ended, Stalled, LoadFailed) as error:
        score.failed = str(error)
