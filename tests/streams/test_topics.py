from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from streams.broker import KafkaBroker
from streams.embedded import EmbeddedBroker, embedded_broker
from streams.exits import BrokerUnavailable
from streams.settings import Settings, load_settings
from streams.topics import create_topics, list_topics, wanted_topics

MakeSettings = Callable[..., Settings]


def states(settings: Settings) -> dict[str, str]:
    return {outcome.name: outcome.state for outcome in create_topics(settings)}


def test_every_topic_once_with_its_policy() -> None:
    settings = load_settings(env={})
    specs = {spec.name: spec for spec in wanted_topics(settings)}
    assert list(specs) == [
        *("news", "chat", "transactions", "feedback", "predictions", "alerts", "routes", "review", "shadow", "drift"),
        *("dead-letters", "releases", "observations", "surge-state"),
    ]
    assert {name for name, spec in specs.items() if spec.compacted} == {"releases", "surge-state"}
    assert specs["surge-state"].config["segment.bytes"] == str(64 << 20)
    assert specs["surge-state"].partitions == specs["observations"].partitions
    assert specs["dead-letters"].config["max.message.bytes"] == str(8 * 1024 * 1024)
    assert specs["alerts"].config["retention.ms"] == str(168 * 3600 * 1000)


def test_a_source_switched_off_needs_no_topic() -> None:
    shipped = load_settings(env={})
    off = shipped.sources["chat"].model_copy(update={"enabled": False})
    settings = shipped.model_copy(update={"sources": shipped.sources | {"chat": off}})
    assert "chat" not in {spec.name for spec in wanted_topics(settings)}


def test_shed_events_have_a_topic_where_a_source_sheds() -> None:
    shipped = load_settings(env={})
    shedding = shipped.sources["chat"].model_copy(update={"shed_after_s": 60.0})
    settings = shipped.model_copy(update={"sources": shipped.sources | {"chat": shedding}})
    (shed,) = {spec.name for spec in wanted_topics(settings)} - {spec.name for spec in wanted_topics(shipped)}
    specs = {spec.name: spec for spec in wanted_topics(settings)}
    assert shed == "shed"
    assert specs["shed"].config == specs["dead-letters"].config


def test_two_sources_of_one_topic_need_it_once() -> None:
    shipped = load_settings(env={})
    settings = shipped.model_copy(update={"sources": shipped.sources | {"again": shipped.sources["news"]}})
    assert [spec.name for spec in wanted_topics(settings)].count("news") == 1


def test_larger_events_get_a_larger_topic() -> None:
    shipped = load_settings(env={})
    settings = shipped.model_copy(update={"intake": shipped.intake.model_copy(update={"max_event_bytes": 5_000_000})})
    news = wanted_topics(settings)[0]
    assert int(news.config["max.message.bytes"]) > 5_000_000


def test_an_address_nobody_answers_at_is_named(settings_at: MakeSettings) -> None:
    with pytest.raises(BrokerUnavailable, match=r"broker\.bootstrap: 127\.0\.0\.1:1 does not answer .*refused"):
        create_topics(settings_at("127.0.0.1:1"))


def test_the_embedded_broker_degrades_with_a_word(settings_at: MakeSettings) -> None:
    settings = settings_at("127.0.0.1:1")
    with embedded_broker({settings.topics.alerts: settings.topics.partitions}) as broker:
        settings = settings.model_copy(
            update={"broker": settings.broker.model_copy(update={"bootstrap": broker.bootstrap})}
        )
        outcomes = {outcome.name: outcome for outcome in create_topics(settings)}
        assert outcomes[settings.topics.alerts].state == "exists"
        assert outcomes[settings.topics.routes].state == "at-first-use"
        assert "four partitions" in outcomes[settings.topics.routes].detail
        assert [(state.name, state.partitions) for state in list_topics(settings)] == [(settings.topics.alerts, 4)]


def test_an_empty_embedded_broker_lists_nothing(embedded: EmbeddedBroker, settings_at: MakeSettings) -> None:
    assert list_topics(settings_at(embedded.bootstrap)) == []


@pytest.mark.kafka
def test_created_once_then_left_alone(kafka: KafkaBroker, settings_at: MakeSettings) -> None:
    settings = settings_at(kafka.bootstrap)
    assert set(states(settings).values()) == {"created"}
    assert set(states(settings).values()) == {"exists"}
    there = {state.name: state for state in list_topics(settings)}
    assert not any(name.startswith("__") for name in there)
    for spec in wanted_topics(settings):
        state = there[spec.name]
        assert (state.partitions, state.replication) == (spec.partitions, spec.replication)
        assert state.compacted == spec.compacted
        assert {key: state.config[key] for key in spec.config} == spec.config
    assert there[settings.topics.alerts].retention_hours == 168
    assert there[settings.topics.releases].retention_hours is None


@pytest.mark.kafka
def test_too_few_partitions_are_reported_and_kept(kafka: KafkaBroker, settings_at: MakeSettings) -> None:
    settings = settings_at(kafka.bootstrap)
    name = settings.topics.alerts
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})  # held on to: its requests end with it
    admin.create_topics([NewTopic(name, 1, 1)])[name].result()
    while name not in admin.list_topics(timeout=10).topics:
        pass  # the controller answers before the broker knows
    outcome = next(outcome for outcome in create_topics(settings) if outcome.name == name)
    assert outcome.state == "too-few-partitions"
    assert name in outcome.todo
    assert {state.name: state.partitions for state in list_topics(settings)}[name] == 1


@pytest.mark.kafka
def test_a_refused_topic_is_named_with_what_to_do(kafka: KafkaBroker, settings_at: MakeSettings) -> None:
    settings = settings_at(kafka.bootstrap, replication=3)
    outcomes = create_topics(settings)
    assert {outcome.state for outcome in outcomes} == {"failed"}
    assert all(outcome.name in outcome.detail for outcome in outcomes)
    assert "topics.replication to at most 1" in outcomes[0].todo
