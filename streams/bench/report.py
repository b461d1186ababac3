"""The result: one object for programs, one table for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from streams.bench.contestants import CEILING, Contestant
from streams.bench.driver import LOADS, Score
from streams.bench.statistics import best, ratio, spread

OURS, STOCK = "streamgauge", "faust"
NOTES = {
    "embedded": "outputs carry the time at which the system handed them to its producer, and an empty fetch is answered"
    " only when its wait is over: latencies say little on this broker",
    "model": "a batch is cut into as many parts as the runtime takes at once: every system has all of the device; where"
    " we pack texts into rows, the others and the ceiling have the same runtime without packing",
}


@dataclass(frozen=True)
class Result:
    """All that was measured. `stream` and `model` are empty when that job was not run."""

    contestants: Sequence[Contestant]
    broker: str
    rounds: int
    events: Mapping[str, int]
    stream: Mapping[str, Score] = field(default_factory=dict)
    model: Mapping[str, Score] = field(default_factory=dict)
    model_info: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def peers(self, scores: Mapping[str, Score]) -> dict[str, float]:
        """The medians of the peers that finished."""
        names = [one.name for one in self.contestants if one.role == "peer"]
        return {name: rate for name in names if name in scores and (rate := scores[name].events_per_s) is not None}


def as_json(result: Result) -> dict[str, Any]:
    """The object that `--json` prints last; a figure that was not measured is null."""
    stream_peers, model_peers = result.peers(result.stream), result.peers(result.model)
    best_stream, best_model = best(stream_peers), best(model_peers)
    stream, ours = result.stream.get(OURS, Score()), result.model.get(OURS, Score())
    stock = stream_peers.get(STOCK)
    ceiling = result.model.get(CEILING.name, Score()).events_per_s
    info = result.model_info
    failed = {
        name: f"{job}: {score.failed}"
        for job, scores in (("stream", result.stream), ("model", result.model))
        for name, score in scores.items()
        if score.failed is not None
    }
    return {
        "stream_only_events_per_s": _rounded(stream.events_per_s),
        "stream_only_cpu_us": _cpu_us(stream),
        "stock_faust_events_per_s": _rounded(stock),
        "stream_only_ratio_to_stock_faust": ratio(stream.events_per_s, stock),
        "stream_only_best_peer": best_stream,
        "stream_only_ratio_to_best_peer": ratio(stream.events_per_s, stream_peers.get(best_stream or "")),
        "events_per_s": _rounded(ours.events_per_s),
        "ceiling_events_per_s": _rounded(ceiling),
        "ratio_to_ceiling": ratio(ours.events_per_s, ceiling),
        "best_peer": best_model,
        "ratio_to_best_peer": ratio(ours.events_per_s, model_peers.get(best_model or "")),
        "padding_ratio": _padding(ours),
        "p99_ms_at_70": _p99_ms(ours, 70),
        "best_peer_p99_ms_at_70": _p99_ms(result.model.get(best_model or "", Score()), 70),
        "rounds": result.rounds,
        "events": dict(result.events),
        "broker": result.broker,
        "device": info.get("device"),
        "runtime": info.get("runtime"),
        "slots": info.get("slots"),
        "release": info.get("release"),
        "systems": {one.name: _system(one, result) for one in result.contestants},
        "left_out": {**result.left_out, **failed},
        "notes": _notes(result),
    }


def _system(one: Contestant, result: Result) -> dict[str, Any]:
    jobs = {"stream": result.stream.get(one.name), "model": result.model.get(one.name)}
    return {
        "version": one.version,
        "guarantee": one.guarantee,
        **{job: _job(score) for job, score in jobs.items() if score is not None},
    }


def _job(score: Score) -> dict[str, Any]:
    figures: dict[str, Any] = {"failed": score.failed, "missing": score.missing, "duplicates": score.duplicates}
    if score.rates:
        of_rates = spread([one.events_per_s for one in score.rates])
        figures |= {name: round(value, 1) for name, value in of_rates._asdict().items()}
        figures["cpu_us_per_event"] = _cpu_us(score)
        figures["rates"] = [round(one.events_per_s, 1) for one in score.rates]
    figures["padding_ratio"] = _padding(score)
    figures["latency_ms"] = {
        str(load): {"p50": round(at.p50_ms, 1), "p99": round(at.p99_ms, 1)} for load, at in score.tails.items()
    }
    return figures


def _notes(result: Result) -> list[str]:
    return [note for what, note in NOTES.items() if what == result.broker or (what == "model" and result.model)]


def _cpu_us(score: Score) -> float | None:
    return round(spread([one.cpu_us_per_event for one in score.rates]).median, 2) if score.rates else None


def _padding(score: Score) -> float | None:
    return round(spread(score.padding_ratios).median, 4) if score.padding_ratios else None


def _p99_ms(score: Score, load: int) -> float | None:
    return round(score.tails[load].p99_ms, 1) if load in score.tails else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def tables(result: Result) -> list[Table]:
    """Rates of each job that was run, and latencies where there are any."""
    titled = (("without a model", result.stream), (f"with {result.model_info.get('release', 'a model')}", result.model))
    shown = [_rates(title, scores, result) for title, scores in titled if scores]
    return [*shown, _latencies(result)] if any(score.tails for score in result.model.values()) else shown


def _rates(title: str, scores: Mapping[str, Score], result: Result) -> Table:
    table = Table(title=f"{title}, on {result.broker}: median of {result.rounds} rounds (least, most)")
    table.add_column("system", no_wrap=True)
    for column in ("version", "events/s", "CPU us", "padding", "missing", "twice"):
        table.add_column(column, justify="right", no_wrap=column in ("version", "events/s"))
    for one in _fastest_first(scores, result.contestants):
        score = scores[one.name]
        table.add_row(
            one.name,
            one.version,
            _spread(score),
            _shown(_cpu_us(score), ".1f"),
            _shown(_padding(score), ".2f"),
            str(score.missing),
            str(score.duplicates),
        )
    return table


def _latencies(result: Result) -> Table:
    table = Table(title="event to prediction, p50 / p99 in ms, at a share of each one's own median")
    table.add_column("system", no_wrap=True)
    for load in LOADS:
        table.add_column(f"{load}%", justify="right", no_wrap=True)
    for one in _fastest_first(result.model, result.contestants):
        if tails := result.model[one.name].tails:
            table.add_row(one.name, *(f"{tails[load].p50_ms:,.0f} / {tails[load].p99_ms:,.0f}" for load in LOADS))
    return table


def _fastest_first(scores: Mapping[str, Score], contestants: Sequence[Contestant]) -> list[Contestant]:
    there = [one for one in contestants if one.name in scores]
    return sorted(there, key=lambda one: -(scores[one.name].events_per_s or 0))


def _spread(score: Score) -> str:
    if score.failed is not None or not score.rates:
        return "failed"
    median, least, most = spread([one.events_per_s for one in score.rates])
    return f"{median:,.0f} ({least:,.0f}, {most:,.0f})"


def _shown(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
