"""`/ready` beside `/metrics`: whether this process works, and if not as it should, why.

200 ready       partitions are assigned, and every model runs as it was chosen
200 degraded    it works, but a model is slow, or runs as the reference on the CPU; "models" says which and why
503 holding     nothing can run a model for now: its texts wait, none is lost
503 waiting     no partitions yet, or they are being shared out anew
503 stalled     the process has not looked after itself for seconds
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import orjson
from prometheus_client import make_wsgi_app

from streams import metrics

READY = "/ready"
_STALLED_AFTER_S = 10.0
_CLIENT_TIMEOUT_S = 10.0


class Readiness:
    """What `/ready` answers; the worker says about once a second how it is.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_s = clock()
        self._said: dict[str, Any] = {"status": "waiting", "partitions": 0, "models": {}}

    def say(self, partitions: int, settled: bool, models: Mapping[str, Mapping[str, Any]]) -> None:
        """How the process is now.

        Args:
            partitions: how many it was given.
            settled: whether they are not being shared out anew.
            models: of each, what `Ladder.report` says.
        """
        states = {model["state"] for model in models.values()}
        if not partitions or not settled:
            status = "waiting"
        elif "holding" in states:
            status = "holding"
        elif states - {"chosen"} or any(model["slow"] for model in models.values()):
            status = "degraded"
        else:
            status = "ready"
        self._said = {"status": status, "partitions": partitions, "models": models}
        self._said_s = self._clock()
        metrics.READY.set(status in ("ready", "degraded"))

    def answer(self) -> tuple[str, bytes]:
        """The HTTP status and the body, JSON."""
        said = self._said
        if (silent_s := self._clock() - self._said_s) > _STALLED_AFTER_S:
            said = said | {"status": "stalled", "silent_s": round(silent_s, 1)}
        status = "200 OK" if said["status"] in ("ready", "degraded") else "503 Service Unavailable"
        return status, orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: Prometheus asks every few seconds."""


def serve_health(host: str, port: int, readiness: Readiness) -> WSGIServer:
    """Answer `/ready` and, everywhere else, the metrics, on threads of their own; OSError when it cannot listen."""
    of_metrics = make_wsgi_app(metrics.REGISTRY)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != READY:
            found: Iterable[bytes] = of_metrics(environ, start_response)
            return found
        status, body = readiness.answer()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    class Server(_Server):
        address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]

    server = make_server(host, port, app, Server, _Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
