"""Redriving on a broker: what is read, what goes back, what is remembered of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import Message

from streams.dead_letters import Filters, Plan, plan_of
from streams.embedded import EmbeddedBroker, embedded_broker
from streams.events import Coordinates, Output
from streams.exits import BrokerUnavailable
from streams.lineage import Redriven, redriven_of
from streams.redriving import LetterTopic, Passed, Redriver, headers_of_message
from streams.settings import Settings
from tests.streams.letters import STAMP_MS, letter, publish
from tests.streams.wire import free_port, read_all

MakeSettings = Callable[..., Settings]


@pytest.fixture
def settings(embedded: EmbeddedBroker, settings_at: MakeSettings) -> Settings:
    return settings_at(embedded.bootstrap)


def filled(settings: Settings, records: Sequence[Output | bytes | None]) -> LetterTopic:
    publish(settings.broker.bootstrap, settings.topics.dead_letters, records)
    return LetterTopic(settings)


def planned(letters: LetterTopic, settings: Settings, **meant: Any) -> Plan:
    sources = {one.topic for one in settings.active_sources.values()}
    return plan_of(letters.letters(Passed()), Filters(**meant), letters.marks(), 1000, 3, sources)


def redriven(letters: LetterTopic, settings: Settings, plan: Plan) -> Redriver:
    redriver = Redriver(settings, letters.name, rate_per_s=1e6)
    for one in letters.letters(Passed(), ranges=plan.ranges):
        if one.lies.offset in plan.chosen[one.lies.partition]:
            assert redriver.send(one)
    redriver.finish()
    return redriver


def events(settings: Settings) -> list[Message]:
    return read_all(settings.broker.bootstrap, settings.sources["chat"].topic)


def letters_of(settings: Settings, count: int, **fields: Any) -> list[Output]:
    topic = settings.sources["chat"].topic
    return [letter(offset, topic=topic, value=b"value %d" % offset, **fields) for offset in range(count)]


def test_all_letters_are_read_and_what_is_none_is_counted(settings: Settings) -> None:
    letters = filled(settings, [*letters_of(settings, 20), b"\x1b[2J{", b"[]", None, b'{"id": 1}'])
    publish(settings.broker.bootstrap, settings.topics.dead_letters, letters_of(settings, 25))  # later: not read
    passed, read = Passed(), list[None]()
    found = list(letters.letters(passed, lambda: read.append(None)))
    assert sorted(one.origin.offset for one in found) == list(range(20))
    assert (passed.records, passed.skipped, len(read), letters.records) == (24, 4, 24, 24)
    assert passed.first_skipped.startswith(settings.topics.dead_letters)
    assert passed.first_skipped.isprintable()
    again = list(letters.letters(Passed()))
    assert [one.id for one in again] == [one.id for one in found], "not the same the second time"


def test_an_empty_topic_has_no_letters(settings_at: MakeSettings) -> None:
    settings = settings_at("127.0.0.1:1")
    with embedded_broker({settings.topics.dead_letters: 2}) as broker:
        there = settings.broker.model_copy(update={"bootstrap": broker.bootstrap})
        letters = LetterTopic(settings.model_copy(update={"broker": there}))
        assert (list(letters.letters(Passed())), letters.marks(), letters.records) == ([], frozenset(), 0)


def test_events_go_back_as_they_were_and_their_letters_are_marked(settings: Settings) -> None:
    topic = settings.sources["chat"].topic
    hostile = letter(40, topic=topic, value=b"\x00\xff" * 300_000, key=None, headers=())
    nothing = letter(41, topic=topic, value=None, key=b"\xff", headers=[("ü", b"")])
    letters = filled(settings, [*letters_of(settings, 10), hostile, nothing])
    tally = redriven(letters, settings, planned(letters, settings)).tally
    assert (tally.redriven, tally.failed, tally.forgotten, tally.by_topic) == (12, {}, 0, {topic: 12})
    found = events(settings)
    assert {message.partition() for message in found} == {3}
    assert len(found) == 12
    by_value = {message.value(): message for message in found}
    assert set(by_value) == {b"value %d" % offset for offset in range(10)} | {b"\x00\xff" * 300_000, None}
    assert (by_value[None].key(), by_value[b"\x00\xff" * 300_000].key(), by_value[b"value 3"].key()) == (
        b"\xff", None, b"k",
    )  # fmt: skip
    headers = headers_of_message(by_value[b"value 3"])
    assert headers[:2] == [("x", b"\x00"), ("x", None)]
    said = Redriven(Coordinates(topic, 3, 3), 1, "2026-03-01T12:00:00.000Z", STAMP_MS)
    assert redriven_of(headers, Coordinates.of(by_value[b"value 3"])) == said

    after = LetterTopic(settings)
    plan = planned(after, settings)
    assert (plan.letters, plan.redriven) == (0, 12)
    assert len(list(after.letters(passed := Passed()))) == 12
    assert passed.skipped == 0, "marks are no surprise"


def test_copies_of_a_letter_go_once(settings: Settings) -> None:
    """A worker that was killed writes some of its letters again."""
    letters = filled(settings, letters_of(settings, 5) * 3)
    assert redriven(letters, settings, planned(letters, settings)).tally.redriven == 5
    publish(settings.broker.bootstrap, settings.topics.dead_letters, letters_of(settings, 5))  # and once more
    assert planned(LetterTopic(settings), settings).letters == 0
    assert len(events(settings)) == 5


def test_only_what_is_meant_goes(settings: Settings) -> None:
    letters = filled(settings, [*letters_of(settings, 5), *letters_of(settings, 3, error="NotUtf8", partition=1)])
    plan = planned(letters, settings, error="notutf8")
    assert redriven(letters, settings, plan).tally.redriven == 3
    assert {message.partition() for message in events(settings)} == {1}
    assert planned(LetterTopic(settings), settings).letters == 5


def test_redriving_what_was_not_remembered_gives_the_same_event_again(settings: Settings) -> None:
    """Cut off between the event's acknowledgement and the mark's, it goes twice: with one lineage."""
    letters = filled(settings, letters_of(settings, 1))
    plan = planned(letters, settings)
    redriven(letters, settings, plan)
    redriven(letters, settings, plan)
    first, second = events(settings)
    assert (first.headers(), first.key(), first.value()) == (second.headers(), second.key(), second.value())


def test_a_letter_whose_partition_is_gone_fails_and_the_rest_goes(settings: Settings) -> None:
    topic = settings.sources["chat"].topic
    lost = letter(99, topic=topic, partition=77)
    letters = filled(settings, [*letters_of(settings, 3), lost])
    tally = redriven(letters, settings, planned(letters, settings)).tally
    assert tally.redriven == 3
    assert list(tally.failed) == [f"{topic}/77/99/dead-letter"]
    assert "partition" in tally.failed[f"{topic}/77/99/dead-letter"].lower()
    assert planned(LetterTopic(settings), settings).letters == 1, "it is still there to be redriven"


def test_the_rate_holds(settings: Settings) -> None:
    ticks = itertools.count(step=0.0001)
    letters = filled(settings, letters_of(settings, 6))
    redriver = Redriver(settings, letters.name, rate_per_s=1000, clock=lambda: next(ticks))
    began = next(ticks)
    for one in letters.letters(Passed()):
        redriver.send(one)
    took_s = next(ticks) - began
    redriver.finish()
    assert 0.005 <= took_s <= 0.0075, "six letters at a thousand a second"


def test_who_asks_to_stop_is_heard_while_waiting(settings: Settings) -> None:
    letters = filled(settings, letters_of(settings, 3))
    answers = iter([False] * 8)  # the first letter goes at once, the second waits for an hour
    redriver = Redriver(settings, letters.name, 1 / 3600, stopping=lambda: next(answers, True))
    sent = [redriver.send(one) for one in letters.letters(Passed())]
    redriver.finish()
    assert sent == [True, False, False]
    assert redriver.tally.redriven == 1
    assert planned(LetterTopic(settings), settings).letters == 2, "what went is remembered, the rest is not"


def test_a_broker_that_is_away_is_named(settings_at: MakeSettings) -> None:
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        LetterTopic(settings_at(f"127.0.0.1:{free_port()}"))


def test_a_topic_that_is_not_there_is_named(settings: Settings) -> None:
    with pytest.raises(BrokerUnavailable, match=f"topic {settings.topics.dead_letters} is not there; run: streamgauge"):
        LetterTopic(settings)
