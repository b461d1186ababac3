"""An alarm of the watch over drift that wants a successor: answered once, by a run, or by asking for labels instead.

topic drift: open, wants retrain  ->  a run  ->  home()/learning/<task>/answered.json
                                  ->  too little to learn from: the alarm again, but wanting labels
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from models.durable import replace_file
from models.releases import MAX_MANIFEST_BYTES, parsed
from streams.events import DriftAlarm, iso
from streams.learning.outbox import Outbox
from streams.reading import TopicReader
from streams.settings import Settings

ANSWERED = "answered.json"

_ALARM: TypeAdapter[DriftAlarm] = TypeAdapter(DriftAlarm)


class Answered(BaseModel):
    """The last alarm that was answered, and when, in seconds since 1970."""

    model_config = ConfigDict(frozen=True)

    alarm: str
    at_s: float


def call(settings: Settings, task: str, folder: Path, now_s: float) -> DriftAlarm | None:
    """The alarm that wants a successor of a task's champion now; None while there is none.

    One alarm is answered once, and within `retrain.cooldown_s` of an answer no other one is. `folder` is the task's.

    Raises:
        BrokerUnavailable: the topic cannot be read.
        IntegrityError: what was answered cannot be read.
    """
    alarm = newest(settings, task)
    if alarm is None or (alarm["state"], alarm["wants"]) != ("open", "retrain"):
        return None
    before = read_answered(folder)
    if before is not None and (before.alarm == alarm["id"] or now_s < before.at_s + settings.retrain.cooldown_s):
        return None
    return alarm


def newest(settings: Settings, task: str) -> DriftAlarm | None:
    """The last record of a task in the topic of alarms. Raises BrokerUnavailable."""
    found: DriftAlarm | None = None
    reader = TopicReader(settings, settings.topics.drift, f"{settings.broker.group}-feedback")
    for message in reader.messages(reader.ranges):
        if (alarm := alarm_in(message.value())) is not None and alarm["task"] == task:
            found = alarm
    return found


def alarm_in(value: Any) -> DriftAlarm | None:
    """The alarm in a record; None for what is none: whoever wrote it, it was no job of ours."""
    try:
        return _ALARM.validate_json(value or b"")
    except ValidationError:
        return None


def answer(folder: Path, alarm: DriftAlarm, now_s: float) -> None:
    """Remember that an alarm was answered."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / ANSWERED, Answered(alarm=alarm["id"], at_s=now_s).model_dump_json().encode())


def read_answered(folder: Path) -> Answered | None:
    """The alarm that was answered last. Raises IntegrityError."""
    path = folder / ANSWERED
    return parsed(Answered, path, path.read_bytes(), MAX_MANIFEST_BYTES) if path.is_file() else None


def ask_for_labels(settings: Settings, alarm: DriftAlarm, why: str, now_s: float) -> None:
    """Say that an alarm wants labels first: the watch over drift then asks people at once.

    Raises what `Outbox.flush` raises.
    """
    outbox = Outbox(settings)
    record: DriftAlarm = {**alarm, "wants": "labels", "at": iso(now_s), "why": why[:1000]}
    outbox.send(settings.topics.drift, alarm["task"], record, now_s)
    outbox.flush()
