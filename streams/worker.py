"""One worker process: load the models, join the group, run until told to stop, leave in order.

Runs under `supervisor`, as `python -m streams.worker`. A clean stop finishes what is in flight, commits and leaves the
group; past its deadline, and on anything unexpected, the process ends at once and the broker gives its partitions away.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn
from wsgiref.simple_server import WSGIServer

import uvloop
from faust.types import TP
from rich.logging import RichHandler

from models.errors import ModelError, RegistryUnavailable
from streams import metrics
from streams.app import Worker, build_worker, observe_lag
from streams.consuming import UnknownFaust, broker_away
from streams.exits import (
    BROKER_UNAVAILABLE,
    DONE,
    UNEXPECTED,
    USAGE,
    AccessRefused,
    BrokerUnavailable,
    end_after,
    end_process,
    guarded,
    leave,
)
from streams.grants import MissingTopics, grants, require_access
from streams.health import READY, Readiness, serve_health
from streams.heap import calm_the_garbage_collector, give_large_blocks_back
from streams.learning.rollout import load_standing
from streams.live import Loaded, load_models
from streams.refusals import refusal_in
from streams.security import SecurityError
from streams.settings import BrokerSettings, Settings, SettingsError, load_settings
from streams.watchdogs import LOOP_LOOK_S, Alarm, LoopGuard, Seen, Watchdogs, memory_mib

log = logging.getLogger("streams.worker")  # __name__ is __main__ here

_WATCH_EVERY_S = 1.0
_ASK_EVERY_S, _ASK_LIMIT_S = 5.0, 4.0


async def serve(settings: Settings, load: Callable[[Settings], Sequence[Loaded]] = load_models) -> NoReturn:
    """Run one worker until SIGTERM or SIGINT, which ends the process. `load` brings the models."""
    stopping, alarms = asyncio.Event(), list[Alarm]()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stopping.set)
    worker = build_worker(settings, await _loaded(settings, load, stopping))
    calm_the_garbage_collector()
    readiness = Readiness()
    server = _serve_health(settings, readiness)
    loops = worker.start_loops()
    starting = guarded(_started(worker, settings.broker), "the start of faust")
    crashed = guarded(_end_when_crashed(worker, settings.broker), "faust")
    guard = LoopGuard(end_process)
    guard.start()

    def drain(alarm: Alarm) -> None:
        alarms.append(alarm)
        stopping.set()

    watchdog = guarded(_watch(worker, settings, readiness, drain), "watchdog")
    watching = [watchdog, guarded(_beat(guard), "event loop's beat")]
    await stopping.wait()
    for alarm in alarms:
        log.critical("%s", alarm.message)
    log.info("stopping: finishing what is in flight")
    end_after(settings.worker.shutdown_s, f"not stopped within worker.shutdown_s = {settings.worker.shutdown_s:g}")
    for task in (watching[0], crashed):
        task.cancel()
    await starting
    await worker.app.stop()
    left = await asyncio.to_thread(worker.publisher.close, 5.0)
    for task in loops:
        task.cancel()
    worker.device.close()
    server.shutdown()
    log.info("stopped%s", f"; {left} outputs unacknowledged, their inputs will be read again" if left else "")
    leave(UNEXPECTED if alarms else DONE)


async def _loaded(
    settings: Settings, load: Callable[[Settings], Sequence[Loaded]], stopping: asyncio.Event
) -> Sequence[Loaded]:
    """The models; told to stop meanwhile, the process ends: measuring runtimes can take longer than it has."""
    loading = asyncio.ensure_future(asyncio.to_thread(load_standing, settings, load))
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        log.info("stopped before the models were loaded")
        leave(DONE)
    stopped.cancel()
    return loading.result()


def _serve_health(settings: Settings, readiness: Readiness) -> WSGIServer:
    host, port = settings.metrics.host, settings.metrics.port
    try:
        server = serve_health(host, port, readiness)
    except OSError as error:
        raise SettingsError(
            f"metrics.port: cannot listen on {host}:{port} ({error.strerror}); set metrics.port to a free one, or 0"
        ) from None
    log.info("metrics on http://%s:%d/metrics, health on %s", host, server.server_port, READY)
    return server


async def _started(worker: Worker, broker: BrokerSettings) -> None:
    try:
        await worker.app.start()
    except Exception as error:
        end_process("faust did not start", refusal_in(error, broker) or broker_away(error))


async def _end_when_crashed(worker: Worker, broker: BrokerSettings) -> None:
    await worker.app.wait()
    if worker.app.crashed:
        reason = worker.app.crash_reason
        end_process("faust crashed", refusal_in(reason, broker) or broker_away(reason))


async def _beat(guard: LoopGuard) -> None:
    """Show the guard that the event loop runs."""
    while True:
        metrics.LOOP_LATE_S.set(guard.late_s)
        guard.beat()
        await asyncio.sleep(LOOP_LOOK_S)


async def _watch(worker: Worker, settings: Settings, readiness: Readiness, drain: Callable[[Alarm], None]) -> None:
    """Report what is seen of the worker, and end the process when a watchdog says so."""
    dogs, shown = Watchdogs(settings), set[TP]()
    answer = asyncio.ensure_future(asyncio.sleep(0, True))
    broker_answers, asked_s = True, -math.inf
    while True:
        await asyncio.sleep(_WATCH_EVERY_S)
        if answer.done():
            broker_answers = answer.result()
            if time.monotonic() - asked_s >= _ASK_EVERY_S:
                asked_s = time.monotonic()
                answer = asyncio.ensure_future(asyncio.to_thread(worker.publisher.broker_answers, _ASK_LIMIT_S))
        seen = _seen(worker, observe_lag(worker.consumer, shown), broker_answers)
        alarm = dogs.look(seen)
        readiness.say(len(worker.consumer.assigned), seen.settled, worker.device.report())
        metrics.LOOP_TASKS.set(len(asyncio.all_tasks()))
        metrics.STALLED_S.set(dogs.stalled_s)
        metrics.BROKER_AWAY_S.set(dogs.away.seconds)
        metrics.OUTSIDE_GROUP_S.set(dogs.outside.seconds)
        if alarm is None:
            continue
        if alarm.ending == "drain":
            drain(alarm)
            return
        away = alarm.ending == "broker away"
        end_process("watchdog" if away else alarm.message, BrokerUnavailable(alarm.message) if away else None)


def _seen(worker: Worker, lag: int, broker_answers: bool) -> Seen:
    consumer = worker.consumer
    return Seen(
        lag=lag,
        done=consumer.progress() + worker.device.batches_run,
        unacknowledged=worker.publisher.unacknowledged,
        uncommitted=consumer.uncommitted(),
        committed=consumer.commits(),
        settled=consumer.is_member() and not worker.app.rebalancing,
        broker_answers=broker_answers,
        memory_mib=memory_mib(),
        held=worker.device.holding,
    )


def main(load: Callable[[Settings], Sequence[Loaded]] = load_models) -> int:
    """Entry of the child process; settings come from `$STREAMGAUGE_CONFIG` and the environment."""
    set_up_logging()
    give_large_blocks_back()
    try:
        settings = load_settings()
        require_access(settings, grants(settings, "worker"))
        uvloop.run(serve(settings, load))
    except (BrokerUnavailable, RegistryUnavailable) as error:
        print(error, file=sys.stderr)
        return BROKER_UNAVAILABLE
    except (SettingsError, SecurityError, AccessRefused, MissingTopics, ModelError, UnknownFaust) as error:
        print(error, file=sys.stderr)
        return USAGE
    except Exception as error:
        end_process("the worker failed", error)


def set_up_logging() -> None:
    """Log to standard error: ours from INFO, libraries' from WARNING."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_handler()])
    for name in ("streams", "models"):
        logging.getLogger(name).setLevel(logging.INFO)


def _handler() -> logging.Handler:
    if sys.stderr.isatty():
        return RichHandler(show_path=False, rich_tracebacks=False)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


if __name__ == "__main__":
    if config := os.environ.get("STREAMGAUGE_CONFIG"):
        os.environ["STREAMGAUGE_CONFIG"] = str(Path(config).resolve())
    leave(main())
