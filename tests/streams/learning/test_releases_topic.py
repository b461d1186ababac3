"""The releases topic: what stands after any records, whatever else lies among them."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest
from confluent_kafka import Producer

from streams.embedded import EmbeddedBroker
from streams.exits import BrokerUnavailable
from streams.learning.releases_topic import (
    MAX_RECORD_BYTES,
    NotARelease,
    ReleasesTopic,
    key_of,
    read_standing,
    release_of,
    write,
)
from streams.settings import Settings
from tests.streams.learning.promoted import release, with_topic
from tests.streams.wire import free_port

MakeSettings = Callable[..., Settings]


def test_the_last_record_of_each_role_stands(embedded: EmbeddedBroker, settings_at: MakeSettings) -> None:
    settings = with_topic(settings_at(embedded.bootstrap))
    with ReleasesTopic(settings) as topic:
        assert topic.read() == {}
        write(settings, {("risk", "champion"): release("first"), ("tone", "champion"): release("other", "tone")})
        write(settings, {("risk", "champion"): release("second!")})
        write(settings, {("risk", "challenger"): release("third", role="challenger", mode="shadow")})
        assert read_standing(settings) == {
            ("risk", "champion"): release("second!"),
            ("tone", "champion"): release("other", "tone"),
            ("risk", "challenger"): release("third", role="challenger", mode="shadow"),
        }
        write(settings, {("risk", "challenger"): None})
        standing = topic.read()
        assert standing.keys() == {("risk", "champion"), ("tone", "champion")}
        assert standing == read_standing(settings)


def test_what_is_no_release_changes_nothing(
    embedded: EmbeddedBroker, settings_at: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = with_topic(settings_at(embedded.bootstrap))
    write(settings, {("risk", "champion"): release("good")})
    producer = Producer({"bootstrap.servers": embedded.bootstrap})
    rubbish: list[tuple[bytes, bytes | None]] = [
        (b"risk/champion", b"\xff"), (b"risk/champion", b"{}"), (b"", b"[]"), (b"risk/king", None),
        (b"tone/champion", orjson.dumps(release("good"))),
    ]  # fmt: skip
    for key, value in rubbish:
        producer.produce(settings.topics.releases, value, key)
    producer.produce(settings.topics.releases, b"no key")
    assert producer.flush(20) == 0
    assert read_standing(settings) == {("risk", "champion"): release("good")}
    assert len([record for record in caplog.records if "passed over" in record.message]) == len(rubbish) + 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sha256": "abc"}, "sha256"),
        ({"share": 1.5}, "share"),
        ({"role": "king"}, "role"),
        ({"mode": "canary"}, "'canary' is not for a champion"),
        ({"task": "tone"}, "it is of tone/champion"),
        ({"reference": ""}, "reference"),
        ({"reference": "x" * MAX_RECORD_BYTES}, "bytes, allowed"),
    ],
)
def test_a_record_that_cannot_be_meant_is_refused_with_its_field(change: dict[str, object], why: str) -> None:
    with pytest.raises(NotARelease, match=why):
        release_of(key_of("risk", "champion"), orjson.dumps({**release("good"), **change}))


def test_a_topic_that_is_not_there_is_named(embedded: EmbeddedBroker, settings_at: MakeSettings) -> None:
    with pytest.raises(BrokerUnavailable, match="is not there; run: streamgauge topics create"):
        read_standing(settings_at(embedded.bootstrap))


def test_a_broker_that_is_away_is_named(settings_at: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.learning.releases_topic._ANSWER_S", 0.5)
    settings = settings_at(f"127.0.0.1:{free_port()}")
    with pytest.raises(BrokerUnavailable, match=settings.topics.releases):
        read_standing(settings)
