"""What the demo shows: rates, latest alerts and routes, latency, and where the metrics are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streams.demo import OUTPUTS, Demo

Row = tuple[Text, ...]

_STYLE = {"high": "bold red", "medium": "yellow", "low": "cyan"}


def view(demo: Demo, elapsed_s: float) -> RenderableType:
    """The whole screen."""
    alerts = _latest([alert_row(value) for value in reversed(demo.tally.alerts)], "alert")
    routes = _latest([route_row(value) for value in reversed(demo.tally.routes)], "route")
    return Group(_figures(demo, elapsed_s), alerts, Text(), routes)


def _figures(demo: Demo, elapsed_s: float) -> RenderableType:
    tally, since_s = demo.tally, max(elapsed_s, 0.1)
    table = Table.grid(padding=(0, 3))
    table.add_row("[b]events[/]", "[b]predictions[/]", "[b]alerts[/]", "[b]routes[/]", "[b]review[/]",
                  "[b]dead letters[/]", "[b]waiting[/]", "[b]p50 / p99[/]")  # fmt: skip
    counts = [tally.events] + [tally.outputs[name] for name in OUTPUTS]
    table.add_row(
        *(f"{count}  [dim]{count / since_s:.0f}/s[/]" for count in counts),
        str(len(tally.sent)),
        f"{tally.percentile_ms(0.5):.0f} / {tally.percentile_ms(0.99):.0f} ms",
    )
    where = f"{elapsed_s:.0f} s · metrics: {demo.metrics_url} · Ctrl-C ends"
    return Panel(table, title="streamgauge demo", subtitle=where)


def _latest(rows: list[Row], what: str) -> RenderableType:
    table = Table(expand=True, box=None, header_style="bold")
    for name, width in (("time", 8), (what, 14), ("label", 20), ("score", 5), ("for", 16)):
        table.add_column(name, width=width, no_wrap=True)
    table.add_column("text", ratio=1, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def alert_row(value: Mapping[str, Any]) -> Row:
    """An alert as the cells time, alert, label, score, for, text."""
    kind = f"{value['kind']} {value['state']}"
    return _row(value, kind, value["subject"], _evidence(value["evidence"]), _STYLE[value["severity"]])


def route_row(value: Mapping[str, Any]) -> Row:
    """A route as the cells time, route, label, score, for, text."""
    return _row(value, value["action"], value["queue"], value["text"], "")


def _row(value: Mapping[str, Any], what: str, subject: str, text: str, style: str) -> Row:
    cells = (value["event_time"][11:19], what, value["label"], f"{value['score']:.2f}", subject, text)
    return tuple(Text(cell, style=style) for cell in cells)


def _evidence(evidence: Mapping[str, Any]) -> str:
    if "text" in evidence:
        return str(evidence["text"])
    headlines = evidence.get("headlines") or [{}]
    counts = evidence["counts"]
    return f"{counts['hits']} hits, {counts['expected']:.1f} expected: {headlines[0].get('text', '')}"
