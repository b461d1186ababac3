"""The outbox: what was sent is there in its order, or said not to be."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from streams.embedded import EmbeddedBroker
from streams.events import Output
from streams.exits import BrokerUnavailable
from streams.learning.outbox import Outbox, send_letters
from streams.publishing import MAX_MESSAGE_BYTES, DeliveryFailed
from streams.settings import Settings
from tests.streams.learning.promoted import with_topic
from tests.streams.wire import free_port, read_all

MakeSettings = Callable[..., Settings]
AT_S = 1_700_000_000.25


def test_records_come_in_their_order_with_their_time(embedded: EmbeddedBroker, settings_at: MakeSettings) -> None:
    settings = with_topic(settings_at(embedded.bootstrap))
    outbox = Outbox(settings)
    for number in range(50):
        outbox.send(settings.topics.releases, "one", {"number": number}, AT_S + number)
    outbox.send(settings.topics.releases, "one", None)
    outbox.flush()
    found = read_all(embedded.bootstrap, settings.topics.releases)
    assert [one.key() for one in found] == [b"one"] * 51
    assert [orjson.loads(one.value() or b"null") for one in found] == [{"number": n} for n in range(50)] + [None]
    assert [one.timestamp()[1] for one in found[:50]] == [int(1000 * (AT_S + number)) for number in range(50)]
    assert found[50].timestamp()[1] > 1000 * (AT_S + 1e6), "without a time it is of now"


def test_a_record_that_is_refused_is_told_and_the_next_one_goes(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    settings = with_topic(settings_at(embedded.bootstrap))
    outbox = Outbox(settings)
    outbox.send(settings.topics.releases, "large", {"text": "x" * MAX_MESSAGE_BYTES})
    with pytest.raises(DeliveryFailed, match=settings.topics.releases):
        outbox.flush()
    outbox.send(settings.topics.releases, "small", {})
    outbox.send(settings.topics.releases, "raw", b"\xff as it is")
    outbox.flush()
    found = read_all(embedded.bootstrap, settings.topics.releases)
    assert {(one.key(), one.value()) for one in found} == {(b"small", b"{}"), (b"raw", b"\xff as it is")}
    assert len(found) == 2


def test_letters_to_a_broker_that_is_away_are_not_taken_for_sent(settings_at: MakeSettings) -> None:
    settings = settings_at(f"127.0.0.1:{free_port()}")
    hasty = settings.model_copy(update={"broker": settings.broker.model_copy(update={"delivery_timeout_s": 1})})
    with pytest.raises(BrokerUnavailable, match=settings.topics.dead_letters):
        send_letters(hasty, [Output("dead_letters", "key", {"id": "one"})])
    send_letters(hasty, [])  # nothing to send: nobody is asked
