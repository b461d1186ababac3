"""Keeps worker processes running: starts them, starts them again when they end, and stops them in order."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType

from models.runtimes.protocol import cores
from streams.children import die_with_parent
from streams.exits import DONE, USAGE

log = logging.getLogger(__name__)

WORKER = "streams.worker"
_FIRST_PAUSE_S = 0.5
_HEALTHY_AFTER_S = 60.0
_POLL_S = 0.1


@dataclass
class _Child:
    env: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    pause_s: float = _FIRST_PAUSE_S
    start_at_s: float = field(default_factory=time.monotonic)


def supervise(
    envs: list[Mapping[str, str]],
    grace_s: float,
    module: str = WORKER,
    longest_pause_s: float = 30.0,
) -> int:
    """Run one worker for each environment until told to stop.

    A worker that ends is started again after a pause that doubles up to a limit; code 2 (configuration) ends them all.

    Args:
        envs: the environment of each worker.
        grace_s: after SIGTERM a worker has so long before it is killed; longer than its own deadline.
        module: what runs as the worker.
        longest_pause_s: the limit of the pauses.

    Returns:
        0 after a clean stop, 2 when a worker refused its configuration, else the worst of the workers' codes.
    """
    told_to_stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        told_to_stop.set()

    before = {one: signal.signal(one, on_signal) for one in (signal.SIGTERM, signal.SIGINT)}
    children = [_Child(env) for env in envs]
    try:
        while not told_to_stop.wait(_POLL_S):
            for child in children:
                if _tend(child, module, longest_pause_s) == USAGE:
                    stop([one.process for one in children if one.process is not None], grace_s)
                    return USAGE
        return stop([one.process for one in children if one.process is not None], grace_s)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _tend(child: _Child, module: str, longest_pause_s: float) -> int | None:
    """Start the child when it is time; when it has ended, say with which code and plan its next start."""
    now_s = time.monotonic()
    if child.process is None:
        if now_s >= child.start_at_s:
            child.process = spawn(child.env, module)
            child.started_s = now_s
        return None
    code = child.process.poll()
    if code is None:
        return None
    if now_s - child.started_s > _HEALTHY_AFTER_S:
        child.pause_s = _FIRST_PAUSE_S
    if code != USAGE:
        log.warning("worker %d ended with code %d; starting again in %.1f s", child.process.pid, code, child.pause_s)
    child.process, child.start_at_s = None, now_s + child.pause_s
    child.pause_s = min(2 * child.pause_s, longest_pause_s)
    return code


def spawn(env: Mapping[str, str], module: str = WORKER) -> subprocess.Popen[bytes]:
    """Start one worker process that dies with this one."""
    return subprocess.Popen(  # noqa: S603  our own module, no shell
        [sys.executable, "-m", module], env=dict(env), preexec_fn=die_with_parent(), start_new_session=True
    )


def stop(running: list[subprocess.Popen[bytes]], grace_s: float) -> int:
    """Ask processes to stop, kill those that have not after `grace_s`; returns the worst exit code."""
    for process in running:
        process.terminate()
    deadline_s = time.monotonic() + grace_s
    worst = DONE
    for process in running:
        try:
            code = process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("worker %d did not stop within %.0f s; killed", process.pid, grace_s)
            process.kill()
            code = process.wait()
        worst = max(worst, DONE if code == -signal.SIGTERM else abs(code))  # told to stop before it could listen
    return worst


def worker_environments(processes: int, metrics_port: int, threads: int | None) -> list[Mapping[str, str]]:
    """The environment of each of so many workers: its own metrics port (0 stays 0: any free one), its share of cores.

    Args:
        processes: how many.
        metrics_port: of the first worker.
        threads: the setting `models.threads`, of each; when left out the workers share this machine's cores.
    """
    threads = threads or max(1, cores() // processes)
    return [
        {
            **os.environ,
            "STREAMGAUGE_METRICS__PORT": str(metrics_port + index if metrics_port else 0),
            "STREAMGAUGE_MODELS__THREADS": str(threads),
        }
        for index in range(processes)
    ]
