from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from rich.console import Console

from streams.broker import KafkaBroker
from streams.checks import Check, render, run_checks
from streams.embedded import EmbeddedBroker
from streams.settings import Settings
from streams.topics import create_topics

MakeSettings = Callable[..., Settings]


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))


def rows(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in run_checks(settings)}


def changed(settings: Settings, section: str, **update: object) -> Settings:
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=update)})


def test_nothing_raises_where_nothing_is_there(settings_at: MakeSettings) -> None:
    found = rows(settings_at("127.0.0.1:1"))
    assert found["configuration"].ok is True
    assert found["broker"].ok is False
    assert "127.0.0.1:1" in found["broker"].detail
    assert "streamgauge broker kafka" in found["broker"].todo
    for task in ("intent", "risk", "sentiment"):
        assert found[f"model {task}"].ok is False
        assert "streamgauge train" in found[f"model {task}"].todo


def test_every_failure_says_what_to_do(settings_at: MakeSettings) -> None:
    assert all(check.todo for check in run_checks(settings_at("127.0.0.1:1")) if check.ok is not True)


def test_the_configuration_row_names_the_file(settings_at: MakeSettings, tmp_path: Path) -> None:
    check = run_checks(settings_at("127.0.0.1:1"), tmp_path / "mine.toml")[0]
    assert "mine.toml over the shipped defaults" in check.detail


def test_plain_text_over_a_network_is_a_warning(settings_at: MakeSettings) -> None:
    far = rows(settings_at("kafka.invalid:9092"))["security"]
    assert far.ok is None
    assert "broker.tls" in far.todo
    assert rows(settings_at("localhost:1"))["security"].ok is True


def test_an_unusable_certificate_is_a_row(settings_at: MakeSettings, tmp_path: Path) -> None:
    settings = changed(settings_at("127.0.0.1:1"), "broker", tls=True, ca_file=tmp_path / "none.pem")
    assert rows(settings)["security"].ok is False
    assert "none.pem" in rows(settings)["security"].detail


def test_surges_without_their_task_are_a_warning(settings_at: MakeSettings) -> None:
    assert rows(changed(settings_at("127.0.0.1:1"), "surge", task="mood"))["surge task"].ok is None


def test_the_embedded_broker_is_a_warning_not_a_failure(embedded: EmbeddedBroker, settings_at: MakeSettings) -> None:
    settings = settings_at(embedded.bootstrap)
    found = rows(settings)
    assert found["broker"].ok is None
    assert found[f"topic {settings.topics.alerts}"].ok is None


def test_a_taken_metrics_port_is_a_failure(settings_at: MakeSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        check = rows(changed(settings_at("127.0.0.1:1"), "metrics", port=port))["metrics"]
        assert check.ok is False
        assert f"127.0.0.1:{port}" in check.detail
    assert rows(changed(settings_at("127.0.0.1:1"), "metrics", port=0))["metrics"].ok is True
    assert rows(changed(settings_at("127.0.0.1:1"), "metrics", host="0.0.0.0", port=0))["metrics"].ok is None  # noqa: S104


def test_the_cpu_is_always_there(settings_at: MakeSettings) -> None:
    assert rows(changed(settings_at("127.0.0.1:1"), "models", device="cpu"))["device"].ok is True


def test_the_table_shows_hostile_text_as_it_is() -> None:
    output = io.StringIO()
    Console(file=output, width=120).print(render([Check("topic x", False, "[red]not markup[/]", "do [this]")]))
    assert "[red]not markup[/]" in output.getvalue()
    assert "do [this]" in output.getvalue()


@pytest.mark.kafka
def test_topics_on_kafka(kafka: KafkaBroker, settings_at: MakeSettings) -> None:
    settings = settings_at(kafka.bootstrap)
    missing = rows(settings)
    assert missing["broker"].ok is True
    assert missing[f"topic {settings.topics.alerts}"].todo == "streamgauge topics create"
    create_topics(settings)
    alerts = rows(settings)[f"topic {settings.topics.alerts}"]
    assert alerts.ok is None  # one copy on one machine
    assert "168 h" in alerts.detail
    assert "replication under 3" in alerts.todo
    assert "compacted" in rows(settings)[f"topic {settings.topics.releases}"].detail


@pytest.mark.kafka
def test_state_that_would_be_lost_is_a_failure(kafka: KafkaBroker, settings_at: MakeSettings) -> None:
    settings = settings_at(kafka.bootstrap)
    name = settings.topics.surge_state
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})  # held on to: its requests end with it
    admin.create_topics([NewTopic(name, 2, 1)])[name].result()
    while name not in admin.list_topics(timeout=10).topics:
        pass  # the controller answers before the broker knows
    create_topics(settings)
    found = rows(settings)
    assert found[f"topic {name}"].ok is False
    assert "cleanup.policy=compact" in found[f"topic {name}"].todo
    assert found["partitions"].ok is False
