"""One worker process: load the models, join the group, run until told to stop, leave in order.

Runs under `supervisor`, as `python -m streams.worker`. A clean stop finishes what is in flight, commits and leaves the
group; past its deadline, and on anything unexpected, the process ends at once and the broker gives its partitions away.
"""

from __future__ import annotations

import asyncio
import gc
import logging
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
from prometheus_client import start_http_server
from rich.logging import RichHandler

from models.errors import ModelError
from streams import metrics
from streams.app import Worker, build_worker, observe_lag
from streams.consuming import UnknownFaust
from streams.exits import BROKER_UNAVAILABLE, DONE, USAGE, BrokerUnavailable, end_after, end_process, guarded, leave
from streams.live import Loaded, load_models
from streams.security import SecurityError
from streams.settings import Settings, SettingsError, load_settings
from streams.topics import connect, wanted_topics

log = logging.getLogger("streams.worker")  # __name__ is __main__ here

_WATCH_EVERY_S = 1.0


async def serve(settings: Settings, load: Callable[[Settings], Sequence[Loaded]] = load_models) -> NoReturn:
    """Run one worker until SIGTERM or SIGINT, which ends the process. `load` brings the models."""
    stopping = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stopping.set)
    worker = build_worker(settings, await _loaded(settings, load, stopping))
    _calm_the_garbage_collector()
    server = _serve_metrics(settings)
    loops = worker.start_loops()
    starting = guarded(worker.app.start(), "the start of faust")
    crashed = guarded(_end_when_crashed(worker), "faust")
    watchdog = guarded(_watch(worker, settings.worker.stall_s), "watchdog")
    await stopping.wait()
    log.info("stopping: finishing what is in flight")
    end_after(settings.worker.shutdown_s, f"not stopped within worker.shutdown_s = {settings.worker.shutdown_s:g}")
    for task in (watchdog, crashed):
        task.cancel()
    await starting
    await worker.app.stop()
    left = await asyncio.to_thread(worker.publisher.close, 5.0)
    for task in loops:
        task.cancel()
    worker.device.close()
    server.shutdown()
    log.info("stopped%s", f"; {left} outputs unacknowledged, their inputs will be read again" if left else "")
    leave(DONE)


async def _loaded(
    settings: Settings, load: Callable[[Settings], Sequence[Loaded]], stopping: asyncio.Event
) -> Sequence[Loaded]:
    """The models; told to stop meanwhile, the process ends: measuring runtimes can take longer than it has."""
    loading = asyncio.ensure_future(asyncio.to_thread(load, settings))
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        log.info("stopped before the models were loaded")
        leave(DONE)
    stopped.cancel()
    return loading.result()


def _calm_the_garbage_collector() -> None:
    """Nothing on an event's way is cyclic: look for cycles seldom, and not among what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _serve_metrics(settings: Settings) -> WSGIServer:
    host, port = settings.metrics.host, settings.metrics.port
    try:
        server, _ = start_http_server(port, host, metrics.REGISTRY)
    except OSError as error:
        raise SettingsError(
            f"metrics.port: cannot listen on {host}:{port} ({error.strerror}); set metrics.port to a free one, or 0"
        ) from None
    log.info("metrics on http://%s:%d/metrics", host, server.server_port)
    return server


async def _end_when_crashed(worker: Worker) -> None:
    await worker.app.wait()
    if worker.app.crashed:
        end_process("faust crashed", worker.app.crash_reason)


async def _watch(worker: Worker, stall_s: float) -> None:
    """Report lag; end the process when there is work and none of it gets done."""
    moved_s, before, shown = time.monotonic(), None, set[TP]()
    while True:
        await asyncio.sleep(_WATCH_EVERY_S)
        assigned = worker.consumer.assigned
        metrics.READY.set(bool(assigned) and not worker.app.rebalancing)
        lag, progress = observe_lag(worker.consumer, shown), worker.consumer.progress()
        if not lag or progress != before or worker.app.rebalancing:
            moved_s, before = time.monotonic(), progress
        elif time.monotonic() - moved_s > stall_s:
            end_process(f"{lag} records waiting and none finished for worker.stall_s = {stall_s:g} seconds")


def main() -> int:
    """Entry of the child process; settings come from `$STREAMGAUGE_CONFIG` and the environment."""
    set_up_logging()
    try:
        settings = load_settings()
        if missing := _missing_topics(settings):
            print(f"topics missing: {', '.join(missing)}; run: streamgauge topics create", file=sys.stderr)
            return USAGE
        uvloop.run(serve(settings))
    except (SettingsError, SecurityError, ModelError, UnknownFaust) as error:
        print(error, file=sys.stderr)
        return USAGE
    except BrokerUnavailable as error:
        print(error, file=sys.stderr)
        return BROKER_UNAVAILABLE
    except Exception as error:
        end_process("the worker failed", error)


def _missing_topics(settings: Settings) -> list[str]:
    _, cluster = connect(settings)
    return [spec.name for spec in wanted_topics(settings) if spec.name not in cluster.topics]


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
