"""The demo's events and its book-keeping."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from confluent_kafka import KafkaError, Message

from streams.demo import Tally, sample_events
from streams.events import Coordinates, Event
from streams.intake import Intake
from streams.settings import load_settings
from tests.streams.records import FakeRecord

SETTINGS = load_settings(env={})
NOW_S = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
ROUND = 390  # three files of 130 samples


def first(count: int) -> list[tuple[str, bytes | None, bytes]]:
    return list(itertools.islice(sample_events(SETTINGS, NOW_S), count))


def good(value: bytes) -> dict[str, Any] | None:
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) and body.get("text", "").strip() else None


def test_times_increase_over_the_rounds_and_stay_in_the_past() -> None:
    bodies = [body for _, _, value in first(3 * ROUND) if (body := good(value))]
    times = [datetime.fromisoformat(body["ts"]).timestamp() for body in bodies]
    assert times == sorted(times)
    assert times[-1] - times[0] > 4 * 3600
    assert times[-1] <= NOW_S


def test_every_fiftieth_record_is_broken() -> None:
    broken = [place for place, (_, _, value) in enumerate(first(2000), 1) if good(value) is None]
    assert broken == list(range(50, 2001, 50))


def test_good_records_pass_intake_and_broken_ones_do_not() -> None:
    intakes = {one.topic: Intake(name, one, SETTINGS.intake) for name, one in SETTINGS.active_sources.items()}
    for topic, key, value in first(2 * ROUND):
        (verdict,) = intakes[topic].decode([FakeRecord(value, topic=topic, key=key)], NOW_S)
        assert isinstance(verdict, Event) == (good(value) is not None)


def test_ids_are_unique_over_the_rounds_and_every_source_has_its_part() -> None:
    rows = first(3 * ROUND)
    ids = [body["id"] for _, _, value in rows if (body := good(value))]
    assert len(ids) == len(set(ids))
    assert set(Counter(topic for topic, _, _ in rows)) == {"news", "chat", "transactions"}


def test_the_same_run_again_sends_the_same() -> None:
    assert first(ROUND) == first(ROUND)


def test_a_demo_that_is_left_running_does_not_run_out_of_events() -> None:
    """An hour at 60 events a second; the events never lie in the future, where intake refuses them."""
    *_, (topic, _, value) = itertools.islice(sample_events(SETTINGS, NOW_S), 60 * 3600)
    sent = sum(1 for _ in itertools.islice(sample_events(SETTINGS, NOW_S), 60 * 3600))
    assert sent == 60 * 3600
    body = good(value)
    assert topic in {"news", "chat", "transactions"}
    assert body is None or datetime.fromisoformat(body["ts"]).timestamp() <= NOW_S + 3600


# ---- the tally


class Acknowledged:
    """A delivery report of librdkafka."""

    def __init__(self, offset: int | None, topic: str = "news") -> None:
        self._offset, self._topic = offset, topic

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int | None:
        return self._offset


def sent(tally: Tally, offset: int | None, error: KafkaError | None = None) -> None:
    message: Message = Acknowledged(offset)  # type: ignore[assignment]  # librdkafka alone can make one
    tally.on_sent(error, message)


def prediction(offset: int, task: str = "sentiment") -> dict[str, Any]:
    return {"task": task, "source": {"name": "news", "topic": "news", "partition": 0, "offset": offset}}


def test_what_is_sent_and_answered_is_not_lost() -> None:
    tally = Tally()
    for offset in range(3):
        sent(tally, offset)
    tally.on_output("predictions", prediction(0))
    tally.on_output("alerts", prediction(0))  # an alert alone answers nothing
    tally.on_output("dead_letters", prediction(2))
    summary = tally.summary()
    assert (summary["events"], summary["predictions"], summary["dead_letters"], summary["lost"]) == (3, 1, 1, 1)
    assert set(tally.sent) == {Coordinates("news", 0, 1)}
    assert len(tally.latencies_ms) == 2
    assert (len(tally.alerts), len(tally.routes)) == (1, 0)


def test_an_answer_before_the_acknowledgement_counts() -> None:
    tally = Tally()
    tally.on_output("predictions", prediction(7))
    assert tally.summary()["lost"] == 0
    sent(tally, 7)
    assert (tally.summary()["events"], tally.summary()["lost"]) == (1, 0)
    assert tally.early == set()


def test_a_record_the_broker_refused_was_never_sent() -> None:
    tally = Tally()
    sent(tally, 1, KafkaError(KafkaError._MSG_TIMED_OUT))
    assert (tally.summary()["events"], tally.summary()["lost"]) == (0, 0)


def test_a_record_that_the_broker_gave_no_place_was_never_sent() -> None:
    tally = Tally()
    sent(tally, None)
    assert (tally.summary()["events"], tally.summary()["lost"]) == (0, 0)


@pytest.mark.parametrize("second", [prediction(4), prediction(4, "another task")], ids=["redelivery", "second task"])
def test_a_second_answer_changes_nothing_and_is_not_kept(second: dict[str, Any]) -> None:
    """Redeliveries repeat outputs, and a source may have two tasks: what is kept must not grow with either."""
    tally = Tally()
    sent(tally, 4)
    tally.on_output("predictions", prediction(4))
    tally.on_output("predictions", second)
    assert tally.summary()["lost"] == 0
    assert len(tally.latencies_ms) == 1
    assert tally.early == set()


def test_percentiles_of_the_latencies() -> None:
    tally = Tally()
    assert tally.percentile_ms(0.99) == 0.0
    tally.latencies_ms.extend(float(one) for one in range(100, 0, -1))
    assert (tally.percentile_ms(0.5), tally.percentile_ms(0.99), tally.percentile_ms(1.0)) == (51.0, 100.0, 100.0)
