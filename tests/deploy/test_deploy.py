"""Prometheus' rules and Grafana's dashboard speak of metrics, labels, alerts and settings that exist."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import prometheus_client as prometheus
import pytest
import yaml
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics import MetricWrapperBase

from streams import metrics
from streams.bulk_histogram import BulkHistogram
from streams.settings import load_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS, GRAFANA = DEPLOY / "prometheus", DEPLOY / "grafana"
TARGET_LABELS = {"job", "instance"}  # Prometheus adds them to every sample
NOT_SHOWN: dict[str, str] = {}  # metric: why neither a rule nor a panel needs it
GRID_COLUMNS = 24

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"\b(streamgauge_\w+)(?:\{([^}]*)\})?")
_MATCHED_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_BY = re.compile(r"\bby\s*\(([^)]*)\)\s*\(")


def declared() -> dict[str, set[str]]:
    """The labels of every sample name that a scrape can bring."""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, BulkHistogram):
            [bulk] = metric.collect()
            for suffix in ("_bucket", "_sum", "_count"):
                found[bulk.name + suffix] = {metric.label} | TARGET_LABELS | ({"le"} if suffix == "_bucket" else set())
        if not isinstance(metric, MetricWrapperBase):
            continue
        [family] = metric.describe()
        labels = set(metric._labelnames) | TARGET_LABELS  # nothing public names them
        suffixes = {"counter": ("_total", "_created"), "histogram": ("_bucket", "_sum", "_count", "_created")}
        for suffix in suffixes.get(family.type, ("",)):
            found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


def families(samples: set[str]) -> set[str]:
    return {re.sub(r"_(total|created|bucket|sum|count)$", "", name) for name in samples}


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    return [rule for group in read_yaml(PROMETHEUS / "alerts.yml")["groups"] for rule in group["rules"]]


def rule_tests() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_yaml(PROMETHEUS / "alerts_test.yml")["tests"]
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "streamgauge.json").read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def variable_queries() -> list[str]:
    return [one["query"]["query"] for one in dashboard()["templating"]["list"] if one["type"] == "query"]


def expressions() -> list[str]:
    series = [one["series"] for test in rule_tests() for one in test["input_series"]]
    return [rule["expr"] for rule in rules()] + queries() + variable_queries() + series


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Every metric of ours in an expression, with the labels it is selected by."""
    for name, matchers in _SELECTOR.findall(_STRING.sub('""', expression)):
        yield name, set(_MATCHED_LABEL.findall(matchers))


def aggregations(expression: str) -> Iterator[tuple[set[str], str]]:
    """The labels of every `by (...)`, with the expression they are taken from."""
    bare = _STRING.sub('""', expression)
    for match in _BY.finditer(bare):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(bare[end], 0)
            end += 1
        yield {label.strip() for label in match[1].split(",")} - {""}, bare[match.end() : end - 1]


def result_labels(expression: str) -> set[str]:
    """The labels a result can have: those of its aggregations, or else all of its metrics'."""
    kept = [labels for labels, _ in aggregations(expression)]
    known = declared()
    return set().union(*(kept or [known[name] for name, _ in selectors(expression)] or [TARGET_LABELS]))


@pytest.mark.parametrize("expression", expressions())
def test_metrics_and_labels_exist(expression: str) -> None:
    known = declared()
    for name, labels in selectors(expression):
        assert name in known, f"{name} is not in streams.metrics"
        assert labels <= known[name], f"{name} has no label {labels - known[name]}"
    for labels, inner in aggregations(expression):
        for name, _ in selectors(inner):
            assert labels <= known[name], f"{name} has no label {labels - known[name]}"


def test_every_metric_is_shown_or_watched() -> None:
    used = families({name for one in [rule["expr"] for rule in rules()] + queries() for name, _ in selectors(one)})
    assert not NOT_SHOWN.keys() & used, "shown after all"
    assert families(set(declared())) - used == NOT_SHOWN.keys()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    texts = rule["annotations"]
    assert set(texts) == {"summary", "description"}
    assert len(texts["summary"]) < 100 < len(texts["description"])
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(texts.values())))
    assert named <= result_labels(rule["expr"])


def test_every_rule_is_seen_firing_and_silent() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    checks = [check for test in rule_tests() for check in test["promql_expr_test"]]
    firing = {name for check in checks for one in check["exp_samples"] for name in _alert_names(one["labels"])}
    assert firing == set(names)
    silent = {name for check in checks if not check["exp_samples"] for name in _alert_names(check["expr"]) or names}
    assert silent >= set(names) - {"StreamgaugeDeadLetters"}  # fires for one source, is silent for two others


def _alert_names(text: str) -> list[str]:
    return re.findall(r'alertname="(\w+)"', text)


def test_texts_name_settings_and_alerts_that_exist() -> None:
    settings = load_settings(env={}).model_dump()
    texts = [text for rule in rules() for text in rule["annotations"].values()]
    text = "\n".join(texts + [panel["description"] for panel in panels()])
    for section, key in re.findall(rf"\b({'|'.join(settings)})\.([a-z_0-9]+)", text):
        assert key in settings[section], f"no setting {section}.{key}"
    assert set(re.findall(r"\bStreamgauge[A-Z]\w+", text)) <= {rule["alert"] for rule in rules()}


def test_prometheus_scrapes_where_worker_and_watch_serve() -> None:
    config, settings = read_yaml(PROMETHEUS / "prometheus.yml"), load_settings(env={})
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    host = settings.metrics.host
    assert targets["streamgauge"] == [f"{host}:{settings.metrics.port}"]
    assert targets["streamgauge-drift"] == [f"{host}:{settings.drift.port}"]
    assert all((PROMETHEUS / name).is_file() for name in config["rule_files"])


def test_grafana_is_pointed_at_prometheus_and_at_the_dashboards() -> None:
    services = read_yaml(DEPLOY / "compose.yaml")["services"]
    [source] = read_yaml(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    [provider] = read_yaml(GRAFANA / "provisioning" / "dashboards" / "streamgauge.yml")["providers"]
    listens = f"--web.listen-address={source['url'].removeprefix('http://')}"
    assert listens in services["prometheus"]["command"]
    mounted = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounted["./grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./grafana/provisioning"] == "/etc/grafana/provisioning"
    scrape_interval = read_yaml(PROMETHEUS / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape_interval


def test_the_dashboard_can_be_provisioned() -> None:
    board = dashboard()
    assert (board["uid"], board["id"]) == ("streamgauge", None)  # the number is the database's to give
    assert board["schemaVersion"] >= 41
    names = [one["name"] for one in board["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "source", "task"]
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(board["panels"])))
    assert used <= set(names), "a variable nobody declared"


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    assert panel["title"] and panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert named <= result_labels(target["expr"])
        assert target["legendFormat"] or panel["type"] == "table"


def test_panels_have_places_and_names_of_their_own() -> None:
    every = dashboard()["panels"]
    for key in ("id", "title"):
        repeated = [value for value, count in Counter(panel[key] for panel in every).items() if count > 1]
        assert not repeated, f"{key} used twice: {repeated}"
    for panel in every:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["w"] > 0 and place["x"] + place["w"] <= GRID_COLUMNS, panel["title"]
    for one, other in combinations(every, 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), f"{one['title']!r} lies on {other['title']!r}"


def _overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    across = a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"]
    down = a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    return across and down


@pytest.mark.parametrize(
    "command",
    ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"],
)
def test_prometheus_accepts_the_files(promtool: Callable[..., None], command: str) -> None:
    promtool(*command.split(), cwd=PROMETHEUS)


def test_prometheus_parses_every_query_of_the_dashboard(promtool: Callable[..., None], tmp_path: Path) -> None:
    recorded = []
    for index, query in enumerate(queries()):
        concrete = re.sub(r"\[\$__\w+\]", "[5m]", query)
        recorded.append({"record": f"query_{index}", "expr": re.sub(r"\$\w+", ".*", concrete)})
    groups = {"groups": [{"name": "dashboard", "rules": recorded}]}
    (tmp_path / "queries.yml").write_text(yaml.safe_dump(groups), encoding="utf-8")
    promtool("check", "rules", "queries.yml", cwd=tmp_path)


def test_prometheus_finds_the_metrics_well_named(promtool: Callable[..., None]) -> None:
    registry = _registry_with_samples()
    promtool("check", "metrics", cwd=PROMETHEUS, text=generate_latest(registry).decode("utf-8"))


def _registry_with_samples() -> prometheus.CollectorRegistry:
    """A second copy of streams.metrics with a sample of every metric; the first belongs to this process."""
    spec = importlib.util.spec_from_file_location("metrics_with_samples", str(metrics.__file__))
    assert spec is not None and spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    for metric in vars(copy).values():
        if isinstance(metric, MetricWrapperBase) and metric._labelnames:
            metric.labels(*metric._labelnames)
        if isinstance(metric, BulkHistogram):
            metric.announce(metric.label)
    registry: prometheus.CollectorRegistry = copy.REGISTRY
    return registry
