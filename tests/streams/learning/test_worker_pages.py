"""What workers' metrics say of their releases, read from pages as a worker serves them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from streams.learning.worker_pages import troubles
from tests.streams.wire import free_port


@contextmanager
def a_worker(refused: str = "", holding: str = "") -> Iterator[str]:
    """A page of metrics: the champion of one task refused, the model of others holding; returns its address."""
    registry = CollectorRegistry()
    refusals = Gauge("streamgauge_release_refused", "", ("task", "role"), registry=registry)
    states = Gauge("streamgauge_model_state", "", ("task", "state"), registry=registry)
    for task in ("risk", "tone"):
        refusals.labels(task, "champion").set(task == refused)
        refusals.labels(task, "challenger").set(1)  # that is nobody's champion
    for state in ("chosen", "reference", "holding"):
        states.labels(holding or "risk+tone", state).set(state == ("holding" if holding else "reference"))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_refusals_and_models_that_nothing_can_run_are_told_by_task_and_worker() -> None:
    with a_worker(refused="tone") as one, a_worker(holding="risk+tone") as other, a_worker() as well:
        found = troubles([one, other, well])
    holds = f"{other} holds its texts: nothing can run the model"
    assert found == {"tone": f"{one} refuses it: it is broken there, see its log; {holds}", "risk": holds}


def test_a_worker_that_does_not_answer_says_nothing() -> None:
    assert troubles([f"127.0.0.1:{free_port()}"]) == {}
