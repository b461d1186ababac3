"""Workers told to stop at awkward moments: each ends in time, and what it left is done by the next."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streams.broker import KafkaBroker
from streams.exits import BROKER_UNAVAILABLE, DONE, UNEXPECTED
from tests.crash.faults import Fault
from tests.crash.runs import (
    BAD_SHARE,
    PARTITIONS,
    PATIENCE_S,
    START_TIMEOUT_S,
    Report,
    Site,
    ends_well,
    once_more,
    running,
    until,
    warm_up,
)
from tests.crash.traffic import Wanted, events
from tests.crash.verdict import judge

EVENTS, FIRST = 300, 50
SHUTDOWN_S = 5.0
LEAVES_WITHIN_S = 10.0  # beyond its deadline, on a busy machine

Terminate = Callable[[subprocess.Popen[bytes]], None]


def once(worker: subprocess.Popen[bytes]) -> None:
    """Tell it to stop."""
    worker.send_signal(signal.SIGTERM)


def twice(worker: subprocess.Popen[bytes]) -> None:
    """Tell it to stop, and again while it does."""
    once(worker)
    time.sleep(0.3)
    once(worker)


@dataclass(frozen=True)
class Stop:
    """What the worker is at when it is told to stop, and with which codes it may end.

    `fault` makes the moment last; without one the worker is idle. With an `outage` the broker is dead from shortly
    before on, until the worker has ended.
    """

    codes: tuple[int, ...]
    fault: Callable[[int], Fault] | None = None
    terminate: Terminate = once
    outage: bool = False


STOPS: dict[str, Stop] = {
    "idle": Stop((DONE,)),
    "mid-batch": Stop((DONE,), lambda seed: Fault("in-inference", 5 + seed, "dwell")),
    "mid-recovery": Stop((DONE,), lambda seed: Fault("surge-recovered", 1, "dwell")),
    "outage": Stop((DONE, UNEXPECTED, BROKER_UNAVAILABLE), lambda seed: Fault("in-inference", 5 + seed, "dwell"),
                   outage=True),
    "twice": Stop((DONE,), lambda seed: Fault("in-inference", 5 + seed, "dwell"), twice),
    "stuck-model": Stop((UNEXPECTED,), lambda seed: Fault("in-inference", 5 + seed, "hang")),
    "stuck-recovery": Stop((UNEXPECTED,), lambda seed: Fault("surge-recovered", 1, "hang")),
}  # fmt: skip


def play(bootstrap: str, folder: Path, name: str, seed: int) -> Report:
    """Stop a worker at that moment, let another finish the work, and say what became of all."""
    if not STOPS[name].outage:
        return once_more(lambda: _play(bootstrap, None, folder, name, seed))
    with KafkaBroker(start_timeout_s=START_TIMEOUT_S) as broker:  # one to be killed
        return once_more(lambda: _play(broker.bootstrap, broker, folder, name, seed))


def _play(bootstrap: str, killed: KafkaBroker | None, folder: Path, name: str, seed: int) -> Report:
    started_s = time.monotonic()
    site, report, wanted = Site(bootstrap, folder, shutdown_s=SHUTDOWN_S), Report(name, seed), Wanted()
    try:
        code = _stop_one(site, killed, STOPS[name], seed, wanted, report)
        if not site.done(wanted):
            with running(site.worker()) as worker:
                _await_all(site, wanted, report)
                report.problems += ends_well(worker)
        report.verdict = judge(site.settings, wanted, PARTITIONS)
        if not report.verdict.clean:
            report.problems.append(f"not what was sent: {report.verdict}")
        if code == DONE and report.verdict.duplicates and killed is None:
            report.problems.append(f"{report.verdict.duplicates} duplicates after a stop in order")
    finally:
        report.seconds = round(time.monotonic() - started_s, 1)
        site.close(keep=bool(report.problems))
    return report


def _stop_one(site: Site, killed: KafkaBroker | None, stop: Stop, seed: int, wanted: Wanted, report: Report) -> int:
    """Bring a worker to the moment, and tell it to stop; its exit code."""
    some = events(EVENTS, BAD_SHARE, seed)
    fault = stop.fault(seed) if stop.fault else None
    first = FIRST
    if fault and fault.point == "surge-recovered":
        first = 0
        with running(site.worker()) as before:  # leaves a state to recover
            warm_up(site, before, some[:FIRST], wanted, report)
            _await_all(site, wanted, report)
            report.problems += ends_well(before)
        some = some[FIRST:]
    with running(site.worker(fault)) as worker:
        if first:
            warm_up(site, worker, some[:first], wanted, report)
        sender = site.sending(some[first:], wanted)
        if fault is None:
            sender.join(PATIENCE_S)
            _await_all(site, wanted, report)
        elif not until(lambda: site.struck() > 0):
            report.problems.append("the moment did not come")
        if killed is not None:
            killed.kill()
        code = _stopped(worker, stop, report)
        if killed is not None:
            killed.start()
        sender.join(PATIENCE_S)
    return code


def _await_all(site: Site, wanted: Wanted, report: Report) -> None:
    if not until(lambda: site.done(wanted)):
        report.problems.append("hung: not everything was committed in time")


def _stopped(worker: subprocess.Popen[bytes], stop: Stop, report: Report) -> int:
    """Tell it to stop and wait for the end."""
    told_s = time.monotonic()
    stop.terminate(worker)
    try:
        code = worker.wait(SHUTDOWN_S + LEAVES_WITHIN_S)
    except subprocess.TimeoutExpired:
        report.problems.append(f"still running {SHUTDOWN_S + LEAVES_WITHIN_S:g} s after it was told to stop")
        return -signal.SIGKILL
    took_s = time.monotonic() - told_s
    report.kinds.append(f"code {code} after {took_s:.1f} s")
    if code not in stop.codes:
        report.problems.append(f"ended with {code} instead of {' or '.join(map(str, stop.codes))}")
    if code == UNEXPECTED and took_s < SHUTDOWN_S - 0.1 and not stop.outage:
        report.problems.append(f"gave up after {took_s:.1f} s, before its deadline")
    return code
