from __future__ import annotations

import json
from io import StringIO

from rich.console import Console

from streams.bench.contestants import CEILING, CONTESTANTS
from streams.bench.driver import Score
from streams.bench.report import Result, as_json, tables
from streams.bench.statistics import Rate, Tail


def score(*events_per_s: float, p99_ms: float | None = None, padding: float | None = None) -> Score:
    tails = {} if p99_ms is None else {70: Tail(p99_ms / 4, p99_ms), 30: Tail(1.0, 2.0), 95: Tail(10.0, 900.0)}
    return Score([Rate(one, 1e6 / one) for one in events_per_s], tails, [padding] if padding else [])


RESULT = Result(
    contestants=[*(one for one in CONTESTANTS if one.name in ("streamgauge", "faust", "aiokafka")), CEILING],
    broker="embedded",
    rounds=3,
    events={"stream": 1000, "model": 100},
    stream={"streamgauge": score(90, 100, 130), "faust": score(5, 5, 4), "aiokafka": score(120, 125, 80)},
    model={
        "streamgauge": score(95, 94, 96, p99_ms=50, padding=1.05),
        "faust": score(20, 21, 22, p99_ms=400, padding=2.0),
        "aiokafka": Score(failed="ended with code 1"),
        "ceiling": score(100, 100, 100, padding=1.01),
    },
    model_info={"runtime": "onnxruntime-fp32", "device": "cpu", "slots": 2, "release": "intent-1"},
    left_out={"bytewax": "bytewax is not installed"},
)


def test_the_object_has_the_figures_that_are_asked_for() -> None:
    found = as_json(RESULT)
    expected = {
        "stream_only_events_per_s": 100,
        "stream_only_cpu_us": 10_000,
        "stock_faust_events_per_s": 5,
        "stream_only_ratio_to_stock_faust": 20,
        "stream_only_best_peer": "aiokafka",
        "stream_only_ratio_to_best_peer": 0.8333,
        "events_per_s": 95,
        "ceiling_events_per_s": 100,
        "ratio_to_ceiling": 0.95,
        "best_peer": "faust",
        "ratio_to_best_peer": 4.5238,
        "padding_ratio": 1.05,
        "p99_ms_at_70": 50,
        "best_peer_p99_ms_at_70": 400,
        "rounds": 3,
        "broker": "embedded",
        "device": "cpu",
        "runtime": "onnxruntime-fp32",
    }
    assert {name: found[name] for name in expected} == expected
    assert json.loads(json.dumps(found)) == found


def test_each_system_shows_what_it_did_and_who_is_missing_is_named() -> None:
    found = as_json(RESULT)
    ours = found["systems"]["streamgauge"]
    assert ours["stream"] | {"median": 100, "min": 90, "max": 130} == ours["stream"]
    assert ours["model"]["latency_ms"]["70"] == {"p50": 12.5, "p99": 50}
    assert "at least once" in ours["guarantee"]
    assert found["left_out"] == {"bytewax": "bytewax is not installed", "aiokafka": "model: ended with code 1"}
    assert any("latencies say little" in note for note in found["notes"])


def test_a_job_that_was_not_run_is_null() -> None:
    found = as_json(Result([], "kafka 4", 1, {}))
    assert found["events_per_s"] is found["best_peer"] is found["ratio_to_ceiling"] is found["device"] is None
    assert found["notes"] == []


def test_the_tables_show_the_fastest_first() -> None:
    console = Console(file=StringIO(), width=120)
    for table in tables(RESULT):
        console.print(table)
    shown = console.file.getvalue() if isinstance(console.file, StringIO) else ""
    stream, model, latencies = (
        shown.split("median of 3 rounds")[1],
        *shown.split("median of 3 rounds")[2].split("p50 /"),
    )
    assert stream.index("aiokafka") < stream.index("streamgauge") < stream.index("faust")
    assert model.index("ceiling") < model.index("streamgauge") < model.index("failed")
    assert "12 / 50" in latencies
    assert "ceiling" not in latencies
