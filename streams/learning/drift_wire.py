"""What the watch over drift reads and sends, as it travels. Pure, but for the topic of alarms read once."""

from __future__ import annotations

from typing import Any, cast

import orjson
from confluent_kafka import Message

from models.learning.alarms import Alarm, Standing, Watch
from models.learning.drift import Shift
from streams.events import Coordinates, DriftAlarm, Movement, ReviewRequest, iso
from streams.learning.watched import Asked, Seen
from streams.reading import TopicReader
from streams.settings import Settings

DIGITS = 6


def seen_in(message: Message) -> list[Seen]:
    """The prediction in a record; what is none is passed over."""
    value: Any = message.value()
    try:
        prediction = orjson.loads(value)
        source, scores = prediction["source"], list(prediction["scores"].values())
        whole = len(scores) > 1 and all(isinstance(one, float | int) for one in (*scores, prediction["score"]))
        at = Coordinates(source["topic"], source["partition"], source["offset"])
        names = [prediction[name] for name in ("id", "event_id", "task", "release", "label")]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return []
    whole = whole and all(isinstance(one, str) for one in (*names, at.topic))
    whole = whole and isinstance(at.partition, int) and isinstance(at.offset, int)
    key: Any = message.key() or b""
    return [Seen(prediction, message.timestamp()[1] / 1000, key.decode("utf-8", "replace"))] if whole else []


def review_request(asked: Asked) -> ReviewRequest:
    """What a person is asked; its id is not that of a worker's request, which may be there too."""
    prediction = cast(ReviewRequest, asked.seen.prediction)
    return {
        **prediction,
        "id": f"{prediction['id']}/review/learning",
        "text": asked.text,
        "reason": asked.pick.why,
    }


def id_of(alarm: Alarm) -> str:
    """An alarm's id, the same as long as it is open."""
    return f"{alarm.task}/drift/{int(alarm.opened_at_s)}"


def alarm_record(alarm: Alarm, standing: Standing, now_s: float) -> DriftAlarm:
    """An alarm, with how the release stands; resolved it has the id it was opened with."""
    accuracy, its = standing.expected.accuracy, standing.labelled
    moved: list[Movement] = [
        {"quantity": name, "value": round(shift.value, DIGITS), "limit": round(shift.limit, DIGITS)}
        for name, shift in alarm.moved.items()
    ]
    return {
        "id": id_of(alarm),
        "task": alarm.task,
        "release": alarm.release,
        "state": alarm.state,
        "wants": alarm.wants,
        "opened_at": iso(alarm.opened_at_s),
        "at": iso(now_s),
        "moved": moved,
        "events": standing.expected.n,
        "expected_accuracy": None if accuracy is None else round(accuracy.value, DIGITS),
        "expected_accuracy_at_release": round(standing.expected_at_release, DIGITS),
        "labelled": 0 if its is None else its.n,
        "labelled_accuracy": None if its is None else round(its.accuracy.value, DIGITS),
        "new_labels": standing.new_labels,
    }


def open_alarms(settings: Settings, group: str) -> dict[str, Watch]:
    """By task, what is to be remembered of an alarm that was open when the watch ended.

    Raises:
        BrokerUnavailable: the topic cannot be read.
    """
    found: dict[str, Watch] = {}
    reader = TopicReader(settings, settings.topics.drift, group)
    for message in reader.messages(reader.ranges):
        value: Any = message.value()
        try:
            record = cast(DriftAlarm, orjson.loads(value))
            found[record["task"]] = Watch(_alarm(record) if record["state"] == "open" else None)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            continue  # whoever wrote this, it was not the watch
    return found


def _alarm(record: DriftAlarm) -> Alarm:
    moved = {one["quantity"]: Shift(one["value"], one["limit"]) for one in record["moved"]}
    opened_at_s = float(record["id"].rpartition("/")[2])
    return Alarm(record["task"], record["release"], "open", opened_at_s, record["wants"], moved)
