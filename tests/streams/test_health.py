"""What `/ready` answers, over HTTP."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from streams import metrics
from streams.health import Readiness, serve_health
from tests.streams.fakes import Clock

WELL = {"state": "chosen", "slow": False}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def readiness(clock: Clock) -> Readiness:
    return Readiness(clock)


@pytest.fixture
def port(readiness: Readiness) -> Iterator[int]:
    server = serve_health("127.0.0.1", 0, readiness)
    yield server.server_port
    server.shutdown()
    server.server_close()


def asked(port: int) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=10) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


@pytest.mark.parametrize(
    ("partitions", "settled", "models", "code", "status"),
    [
        (12, True, {"risk": WELL, "tone": WELL}, 200, "ready"),
        (12, True, {"risk": WELL, "tone": WELL | {"state": "reference"}}, 200, "degraded"),
        (12, True, {"risk": WELL | {"slow": True}}, 200, "degraded"),
        (12, True, {"risk": WELL | {"state": "reference"}, "tone": WELL | {"state": "holding"}}, 503, "holding"),
        (0, True, {"risk": WELL}, 503, "waiting"),
        (12, False, {"risk": WELL}, 503, "waiting"),
    ],
)
def test_what_it_answers(
    readiness: Readiness, partitions: int, settled: bool, models: dict[str, Any], code: int, status: str
) -> None:
    readiness.say(partitions, settled, models)
    answer, body = readiness.answer()
    assert int(answer.split()[0]) == code
    assert json.loads(body) == {"status": status, "partitions": partitions, "models": models}
    assert metrics.REGISTRY.get_sample_value("streamgauge_ready") == (code == 200)


def test_who_says_nothing_for_long_has_stalled(readiness: Readiness, port: int, clock: Clock) -> None:
    assert asked(port) == (503, {"status": "waiting", "partitions": 0, "models": {}})
    readiness.say(1, True, {"risk": WELL})
    clock.sleep(9)
    assert asked(port) == (200, {"status": "ready", "partitions": 1, "models": {"risk": WELL}})
    clock.sleep(6)
    code, said = asked(port)
    assert (code, said["status"], said["silent_s"]) == (503, "stalled", 15.0)


def test_the_metrics_are_where_they_were(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert b"streamgauge_ready" in answer.read()


def test_it_listens_where_it_is_told_alone(readiness: Readiness) -> None:
    server = serve_health("::1", 0, readiness) if socket.has_ipv6 else serve_health("127.0.0.1", 0, readiness)
    try:
        assert server.socket.getsockname()[0] in ("::1", "127.0.0.1")
    finally:
        server.shutdown()
        server.server_close()


def test_a_client_that_sends_nothing_keeps_nobody_waiting(readiness: Readiness, port: int) -> None:
    readiness.say(1, True, {"risk": WELL})
    with socket.create_connection(("127.0.0.1", port), timeout=10):
        assert asked(port)[0] == 200
