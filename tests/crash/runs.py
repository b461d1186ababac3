"""One run: events flow, a worker is struck, others follow it, and in the end every event is accounted for."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.progress import track

from streams.broker import BrokerError
from streams.children import die_with_parent
from streams.exits import BrokerUnavailable
from streams.settings import OUTPUT_TOPICS, TOPICS, Settings, load_settings
from streams.topics import create_topics
from tests.crash.faults import EXIT_CODE, STRUCK, Fault
from tests.crash.points import ALL_POINTS
from tests.crash.traffic import TASKS, Event, Wanted, events, send
from tests.crash.verdict import Verdict, judge
from tests.crash.worker import MUTATION
from tests.kafka.harness import ROOT
from tests.streams.wire import Ends, committed

PARTITIONS = 2
EVENTS, BAD_SHARE, SECONDS = 400, 0.05, 3.0
SLICE_EVENTS, SLICES_IN_FLIGHT = 10, 2
BATCH = SLICE_EVENTS * SLICES_IN_FLIGHT * len(TASKS)  # events that may be under way in a worker, over its sources
COMMIT_TAKES_S = 1.0  # at most, on a busy machine; its interval is a tenth of that
DUPLICATES_PER_FAULT = BATCH + int(EVENTS / SECONDS * COMMIT_TAKES_S)  # those under way, and done since the last commit
PATIENCE_S = 120.0  # for what takes a second or, after a kill, the six of the group's session, on a busy machine
START_TIMEOUT_S = 300.0  # of a broker, on a busy machine
LETS_GO_S = 30.0  # after a fault that kills nothing the process must have ended itself; it takes milliseconds

BUSY = (KafkaException, BrokerUnavailable, BrokerError)  # the broker, or the machine, is too busy to answer

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Case:
    """What happens in a run: faults of consecutive workers, the last of which is followed by one without."""

    name: str
    faults: tuple[Fault, ...]
    seed: int
    mutation: str = ""


@dataclass
class Report:
    """What became of a run; `problems` is empty when nothing is wrong."""

    case: str
    seed: int
    kinds: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def draw(name: str, seed: int, mutation: str = "") -> Case:
    """A case of this name: kind and passing follow from the seed."""
    rng, point = random.Random(f"{name}/{seed}"), ALL_POINTS[name]
    fault = Fault(name, rng.randint(*point.passings), point.kinds[seed % len(point.kinds)])
    # What recovers needs a state to recover: the worker before is killed once it has saved one.
    first = (Fault("surge-saved", rng.randint(5, 12), "kill"),) if name == "surge-recovered" else ()
    return Case(name, (*first, fault), seed, mutation)


class Site:
    """Topics, group and files of one run on a broker."""

    def __init__(self, bootstrap: str, folder: Path, **worker: float) -> None:
        self.run = f"crash-{uuid.uuid4().hex[:10]}"
        self.folder = folder / self.run
        self.folder.mkdir(parents=True)
        self.file = self.folder / "streamgauge.toml"
        self.file.write_text(_configuration(self.run, bootstrap, worker))
        self.settings: Settings = load_settings(self.file, env={})
        self.log = self.folder / "worker.log"
        self.source_topics = {name: one.topic for name, one in self.settings.active_sources.items()}
        assert until(lambda: not any(outcome.todo for outcome in create_topics(self.settings)))

    def worker(self, fault: Fault | None = None, mutation: str = "") -> subprocess.Popen[bytes]:
        """Start a worker, with a fault or none; it does not outlive the thread that plays the run."""
        given = {"STREAMGAUGE_CONFIG": str(self.file), "STREAMGAUGE_HOME": str(self.folder / "home")}
        given |= {MUTATION: mutation} | (fault.environment() if fault else {})
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.crash.worker"], cwd=ROOT, env={**os.environ, **given}, stdout=log,
                stderr=subprocess.STDOUT, preexec_fn=die_with_parent(),
            )  # fmt: skip

    def sending(self, some: Sequence[Event], wanted: Wanted) -> threading.Thread:
        """Send events from a thread, over SECONDS."""
        arguments = (self.settings.broker.bootstrap, self.source_topics, some, SECONDS, wanted)
        sender = threading.Thread(target=send, args=arguments, daemon=True)
        sender.start()
        return sender

    def outputs(self) -> Ends:
        """Counts the predictions."""
        return Ends(self.settings.broker.bootstrap, [self.settings.topics.predictions], PARTITIONS)

    def done(self, wanted: Wanted) -> bool:
        """Whether the group has committed everything that was sent, and every observation it caused."""
        at, group = self.settings.broker.bootstrap, self.settings.broker.group
        reached = sum(_sum(committed(at, group, topic, PARTITIONS)) for topic in self.source_topics.values())
        if reached < wanted.sent:
            return False
        ends = Ends(at, [self.settings.topics.observations], PARTITIONS)
        try:
            return _sum(committed(at, group, self.settings.topics.observations, PARTITIONS)) >= ends.total()
        finally:
            ends.close()

    def struck(self) -> int:
        """How many faults have struck so far."""
        return self.log.read_text(errors="replace").count(STRUCK) if self.log.exists() else 0

    def close(self, keep: bool) -> None:
        """Delete the topics, and the files unless they are to be looked at."""
        names = [*self.source_topics.values(), *(getattr(self.settings.topics, name) for name in OUTPUT_TOPICS)]
        AdminClient({"bootstrap.servers": self.settings.broker.bootstrap, "log_level": 0}).delete_topics(names)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def _sum(offsets: Iterable[int]) -> int:
    return sum(max(0, one) for one in offsets)


def _configuration(run: str, bootstrap: str, worker: Mapping[str, float]) -> str:
    outputs = TOPICS
    lines = ["[broker]", f'bootstrap = "{bootstrap}"', f'group = "{run}"', "session_timeout_s = 6"]
    lines += ["commit_interval_ms = 100", "[topics]", f"partitions = {PARTITIONS}"]
    lines += [f'{name} = "{run}-{name.replace("_", "-")}"' for name in outputs]
    lines += ["[metrics]", "port = 0", "[batching]", f"max_slice_events = {SLICE_EVENTS}"]
    lines += [f"max_slices_in_flight = {SLICES_IN_FLIGHT}", "[worker]"]
    lines += [f"{name} = {value}" for name, value in worker.items()]
    lines += ["[surge]", "bucket_s = 60", "window_buckets = 5", "baseline_buckets = 20", "min_support = 4"]
    lines += ["ratio = 1.5", "significance = 0.2", "resolve_ratio = 1.2", "cooldown_s = 60"]
    for source in ("news", "chat"):
        lines += [f"[sources.{source}]", f'topic = "{run}-{source}"']
    return "\n".join([*lines, "[sources.transactions]", "enabled = false"])


@contextmanager
def running(worker: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is gone afterwards, whatever happens."""
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.kill()
        worker.wait()


def until(true: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
    """Whether it becomes true in time."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        with suppress(*BUSY):
            if true():
                return True
        time.sleep(0.1)
    return False


def once_more(play: Callable[[], R]) -> R:
    """Play; anew, with topics of its own, where the broker could not be asked for the outcome."""
    with suppress(*BUSY):
        return play()
    return play()


def run(bootstrap: str, folder: Path, case: Case) -> Report:
    """Play a case and say what became of it."""
    return once_more(lambda: _run(bootstrap, folder, case))


def _run(bootstrap: str, folder: Path, case: Case) -> Report:
    started_s = time.monotonic()
    site, report = Site(bootstrap, folder), Report(case.name, case.seed, [fault.kind for fault in case.faults])
    try:
        wanted = _play(site, case, report)
        report.verdict = judge(site.settings, wanted, PARTITIONS)
        if not report.verdict.clean:
            report.problems.append(f"not what was sent: {json.dumps(asdict(report.verdict))}")
        if report.verdict.duplicates > DUPLICATES_PER_FAULT * len(case.faults):
            report.problems.append(f"{report.verdict.duplicates} duplicates")
    finally:
        report.seconds = round(time.monotonic() - started_s, 1)
        site.close(keep=bool(report.problems) and not case.mutation)
    if report.problems and not case.mutation:
        report.problems.append(f"see {site.log}")
    return report


def _play(site: Site, case: Case, report: Report) -> Wanted:
    """Send while one worker after the other is struck; the last one has to bring everything to its end."""
    wanted, some = Wanted(), events(EVENTS, BAD_SHARE, case.seed)
    with ExitStack() as workers:
        worker = workers.enter_context(running(site.worker(case.faults[0], case.mutation)))
        warm_up(site, worker, some[:8], wanted, report)
        sender = site.sending(some[8:], wanted)
        for number, fault in enumerate(case.faults):
            await_strike(site, worker, fault, number, report)
            following = case.faults[number + 1] if number + 1 < len(case.faults) else None
            worker = workers.enter_context(running(site.worker(following, case.mutation)))
        sender.join(PATIENCE_S)
        if wanted.sent < EVENTS:
            report.problems.append(f"only {wanted.sent} events could be sent")
        if not until(lambda: site.done(wanted)):
            report.problems.append("hung: not everything was committed in time")
        report.problems += ends_well(worker)
    return wanted


def warm_up(
    site: Site, worker: subprocess.Popen[bytes], first: Sequence[Event], wanted: Wanted, report: Report
) -> None:
    """The traffic begins when the worker is at work: before, a backlog would only arise."""
    send(site.settings.broker.bootstrap, site.source_topics, first, 0.1, wanted)
    ends = site.outputs()
    try:
        if not until(lambda: ends.total() > 0 or worker.poll() is not None):
            report.problems.append("the worker did not begin")
    finally:
        ends.close()


def await_strike(site: Site, worker: subprocess.Popen[bytes], fault: Fault, number: int, report: Report) -> None:
    """Wait for the fault and the end of the process, which is the fault's or the product's own doing."""
    if not until(lambda: site.struck() > number or worker.poll() is not None) or site.struck() <= number:
        report.problems.append(f"{fault.point} was not struck")
    codes = ALL_POINTS[fault.point].ends_with or (EXIT_CODE, -signal.SIGKILL)
    try:
        code = worker.wait(LETS_GO_S)
        if code not in codes:
            report.problems.append(f"ended with {code} instead of {' or '.join(map(str, codes))}")
    except subprocess.TimeoutExpired:
        report.problems.append(f"still running {LETS_GO_S:g} s after {fault.point}")
        worker.kill()
        worker.wait()


def ends_well(worker: subprocess.Popen[bytes]) -> list[str]:
    """Tell a worker to stop; what was wrong with how it did."""
    worker.terminate()
    try:
        code = worker.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        return ["hung: did not end when told to"]
    return [] if code == 0 else [f"ended with {code} when told to stop"]


def several(work: Callable[[T], R], items: Sequence[T], at_once: int, what: str, quiet: bool = False) -> list[R]:
    """Work on items side by side: most of a run is waiting for the group's session to end."""
    with ThreadPoolExecutor(at_once) as pool:
        console = Console(stderr=True, quiet=quiet)
        return list(track(pool.map(work, items), what, len(items), console=console))
