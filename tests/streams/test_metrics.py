"""What operators see: counts start at 0, and each output is counted under its own labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import generate_latest

from streams import metrics
from streams.batching import Batch
from streams.events import Output
from streams.metrics import ScorerMetrics, SourceMetrics

ALERT = {"kind": "surge", "state": "open", "severity": "high"}


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"streamgauge_{name}", labels) or 0.0


def outputs(name: Any, count: int = 1, **fields: object) -> list[Output]:
    return [Output(name, "key", fields)] * count


def test_alerts_are_counted_though_nothing_else_comes_with_them() -> None:
    """As those of the surge detector do."""
    before = value("alerts_total", **ALERT)
    counts = SourceMetrics("observations", ()).decided(outputs("alerts", 3, **ALERT))
    assert counts == {"alerts": 3}
    assert value("alerts_total", **ALERT) == before + 3


def test_every_output_is_counted_under_its_own_labels(unique: Callable[[str], str]) -> None:
    source, one, other = unique("source"), unique("task"), unique("task")
    counted = SourceMetrics(source, (one, other))
    before = value("routes_total", action="template")
    dead = outputs("dead_letters", stage="intake", error="NotJson")
    counts = counted.decided(
        outputs("predictions", 6) + outputs("observations", 4) + dead * 2 + outputs("review", task=other)
        + outputs("routes", action="template")
    )  # fmt: skip
    assert counts == {"predictions": 6, "observations": 4, "dead_letters": 2, "review": 1, "routes": 1}
    assert [value("predictions_total", source=source, task=task) for task in (one, other)] == [3, 3]
    assert [value("reviews_total", task=task) for task in (one, other)] == [0, 1]
    assert value("dead_letters_total", source=source, stage="intake", error="NotJson") == 2
    assert value("routes_total", action="template") == before + 1


def test_what_is_acknowledged_is_counted_with_its_latency(unique: Callable[[str], str]) -> None:
    source = unique("source")
    counted = SourceMetrics(source, ("risk",))
    counted.accepted(3)
    assert value("slices_in_flight", source=source) == 1
    assert value("events_out_total", source=source, output="predictions") == 0
    counted.settled({"predictions": 3}, 0.004, [1_000_000, 1_000_500, 1_004_000], now_s=1_001.0)
    assert value("slices_in_flight", source=source) == 0
    assert value("events_in_total", source=source) == 3
    assert value("events_out_total", source=source, output="predictions") == 3
    assert value("publish_seconds_count", source=source) == 1
    assert value("event_to_output_seconds_count", source=source) == 3
    assert value("event_to_output_seconds_bucket", source=source, le="0.001") == 1  # a clock that is behind: no time
    assert value("event_to_output_seconds_bucket", source=source, le="0.5") == 2
    assert value("event_to_output_seconds_sum", source=source) == 1.5


def test_every_source_and_model_starts_at_0(unique: Callable[[str], str]) -> None:
    """Or Prometheus sees no first increase."""
    source, task = unique("source"), unique("task")
    SourceMetrics(source, (task,))
    ScorerMetrics(task)
    page = generate_latest(metrics.REGISTRY).decode()
    for series in (
        f'events_in_total{{source="{source}"}}', f'events_out_total{{output="alerts",source="{source}"}}',
        f'predictions_total{{source="{source}",task="{task}"}}', f'reviews_total{{task="{task}"}}',
        f'event_to_output_seconds_count{{source="{source}"}}', f'long_texts_total{{task="{task}"}}',
        f'texts_cut_total{{task="{task}"}}', f'model_failures_total{{task="{task}"}}',
    ):  # fmt: skip
        assert f"streamgauge_{series} 0.0" in page, series


def test_padding_can_be_told_from_the_counters(unique: Callable[[str], str]) -> None:
    task = unique("task")
    counted = ScorerMetrics(task)
    counted.ran(Batch([1, 2], tokens=90, waited_s=0.01), 100, 0.02)
    counted.ran(Batch([3], tokens=10, waited_s=0.0), 10, 0.01)
    assert value("padded_tokens_total", task=task) / value("tokens_total", task=task) == 1.1
    assert value("padding_ratio", task=task) == 1.0
    assert value("batch_events_sum", task=task) == 3
    assert value("queue_wait_seconds_sum", task=task) == 0.01
