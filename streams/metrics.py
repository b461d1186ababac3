"""Every Prometheus metric, declared once. Labels come from the configuration, never from input."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)

_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_EVENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOKENS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


def _counter(name: str, what: str, *labels: str) -> Counter:
    return Counter(f"streamgauge_{name}", what, labels, registry=REGISTRY)


def _gauge(name: str, what: str, *labels: str) -> Gauge:
    return Gauge(f"streamgauge_{name}", what, labels, registry=REGISTRY)


def _histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"streamgauge_{name}", what, labels, buckets=buckets, registry=REGISTRY)


EVENTS_IN = _counter("events_in_total", "Records read from a source", "source")
EVENTS_OUT = _counter("events_out_total", "Records acknowledged by the broker, by output", "source", "output")
DEAD_LETTERS = _counter("dead_letters_total", "Inputs that became dead letters", "source", "stage", "error")
PREDICTIONS = _counter("predictions_total", "Predictions published", "source", "task")
ALERTS = _counter("alerts_total", "Alerts published", "kind", "state", "severity")
ROUTES = _counter("routes_total", "Chat turns routed", "action")
REVIEWS = _counter("reviews_total", "Predictions sent to a person", "task")

BATCH_EVENTS = _histogram("batch_events", "Events in a batch", _EVENTS, "task")
BATCH_TOKENS = _histogram("batch_padded_tokens", "Tokens in a batch, padding counted", _TOKENS, "task")
REAL_TOKENS = _counter("tokens_total", "Tokens scored, padding not counted", "task")
PADDED_TOKENS = _counter("padded_tokens_total", "Tokens scored, padding counted", "task")
PADDING_RATIO = _gauge("padding_ratio", "Padded over real tokens of the last batch", "task")
TEXTS_CUT = _counter("texts_cut_total", "Texts longer than the model reads, cut", "task")
QUEUE_WAIT_S = _histogram("queue_wait_seconds", "How long the first event of a batch waited", _LATENCY_S, "task")
INFERENCE_S = _histogram("inference_seconds", "Model time of a batch", _LATENCY_S, "task")
MODEL_FAILURES = _counter("model_failures_total", "Batches the model refused, before halving", "task")
MODEL_INFO = _gauge("model_info", "1 for the release that serves a task", "task", "release", "device")

OUTPUT_LATENCY_S = _histogram(
    "event_to_output_seconds",
    "From the input's broker time stamp to the acknowledgement of its outputs",
    _LATENCY_S,
    "source",
)
PUBLISH_S = _histogram("publish_seconds", "From handing over to acknowledgement by the broker", _LATENCY_S, "source")
LAG = _gauge("consumer_lag", "Records between the log end and the last finished one", "topic", "partition")
SLICES_IN_FLIGHT = _gauge("slices_in_flight", "Slices read but not finished", "source")
REBALANCES = _counter("rebalances_total", "Times this worker's partitions were assigned")
LATE_OBSERVATIONS = _counter("late_observations_total", "Observations after their bucket was closed")
SURGES_OPEN = _gauge("surges_open", "Surge alerts not resolved yet")
READY = _gauge("ready", "1 once partitions are assigned and models are warm")


def announce_source(source: str, outputs: Iterable[str]) -> None:
    """Let a source's counters start at 0: Prometheus cannot see the increase of a series that begins at 13."""
    EVENTS_IN.labels(source)
    for output in outputs:
        EVENTS_OUT.labels(source, output)


def announce_task(task: str) -> None:
    """Let a task's counters start at 0."""
    for counter in (REVIEWS, TEXTS_CUT, MODEL_FAILURES, REAL_TOKENS, PADDED_TOKENS):
        counter.labels(task)
