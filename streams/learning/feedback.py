"""A record of the feedback topic to what it says: about which text, who, which label, when. Pure.

record (bytes)  ->  Heard | Rejected
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, NamedTuple, Self

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message
from pydantic import TypeAdapter, ValidationError

from models.learning.opinions import Position
from streams.events import Coordinates, Feedback, Rejected
from streams.intake import BadInput, Record, parse, seconds_of
from streams.redriving import headers_of_message
from streams.settings import IntakeSettings, Settings, Source

_FEEDBACK = TypeAdapter(Feedback)
_PREDICTION_ID = re.compile(
    r"(?P<identity>(?P<topic>[A-Za-z0-9._-]{1,249})/(?P<partition>\d{1,9})/(?P<offset>\d{1,18})"
    r"(?P<redriven>/redriven-[0-9a-f]{16})?)/(?P<task>[a-z][a-z0-9_-]{0,63})(/(review|route|alert)\b.*)?"
)


class KafkaRecord(NamedTuple):
    """A record that does not depend on the client it was read by."""

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    @classmethod
    def of(cls, message: Message) -> Self:
        """A message that was read."""
        kind, timestamp_ms = message.timestamp()
        key: Any = message.key()
        value: Any = message.value()
        known_ms = None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms
        return cls(*Coordinates.of(message), known_ms, key, value, headers_of_message(message))


class OwnText(NamedTuple):
    """A text that the feedback brought itself."""

    text: str


class OfPrediction(NamedTuple):
    """The text of an event, by the id of a prediction.

    `identity` is what the ids of the event's outputs begin with; `at` is where the event lies, None when that does not
    follow from the id: it was redriven.
    """

    prediction_id: str
    identity: str
    at: Coordinates | None


class OfEvent(NamedTuple):
    """The text of an event, by the id that its sender gave it."""

    event_id: str


@dataclass(frozen=True)
class Heard:
    """One record of feedback, its text not looked up yet. `label` None withdraws the label that was given."""

    record: Record
    task: str
    subject: OwnText | OfPrediction | OfEvent
    label: str | None
    annotator: str
    labelled_at_s: float
    note: str | None
    at_random: bool = False

    @property
    def at(self) -> Position:
        """Where in the feedback topic it lies."""
        return Position(self.record.partition, self.record.offset)


class Listener:
    """Understands feedback on the tasks of some sources.

    Args:
        settings: the sources, and the bounds on what one record may be.
    """

    def __init__(self, settings: Settings) -> None:
        self._limits: IntakeSettings = settings.intake
        self._sources: Mapping[str, Source] = {one.topic: one for one in settings.active_sources.values()}
        self._tasks = settings.tasks
        earliest = settings.intake.earliest_time
        self._earliest_s = (earliest if earliest.tzinfo else earliest.replace(tzinfo=UTC)).timestamp()

    def understand(self, record: Record, now_s: float) -> Heard | Rejected:
        """What a record says. `now_s` is the wall clock; never raises."""
        at = Coordinates(record.topic, record.partition, record.offset)
        try:
            return self._heard(record, now_s)
        except BadInput as bad:
            return Rejected(at, "feedback", bad.error, f"{at}: {bad}"[:1024])

    def _heard(self, record: Record, now_s: float) -> Heard:
        said = _validated(parse(record.value, self._limits))
        if said["task"] not in self._tasks:
            raise BadInput("UnknownTask", f"no source has a task {said['task']!r}; there are: {', '.join(self._tasks)}")
        withdraws = said.get("action") == "withdraw"
        if not withdraws and "label" not in said:
            raise BadInput("BadFeedback", 'field \'label\' is missing; to take a label back, say "action": "withdraw"')
        labelled_at_s = seconds_of(said["labelled_at"], "field 'labelled_at'")
        if not self._earliest_s <= labelled_at_s <= now_s + self._limits.max_future_s:
            raise BadInput("BadTime", "field 'labelled_at' is outside intake.earliest_time .. now + max_future_s")
        label = None if withdraws else said["label"]
        subject = self._subject(said)
        who, note, at_random = said["annotator"], said.get("note"), said.get("at_random", False)
        return Heard(record, said["task"], subject, label, who, labelled_at_s, note, at_random)

    def _subject(self, said: Feedback) -> OwnText | OfPrediction | OfEvent:
        if "prediction_id" in said:
            return self._of_prediction(said["prediction_id"], said["task"])
        if "event_id" in said:
            return OfEvent(said["event_id"])
        if "text" not in said:
            raise BadInput("BadFeedback", "one of the fields 'prediction_id', 'event_id' and 'text' is needed")
        most = self._limits.max_text_chars
        if not 0 < len(text := said["text"].strip()) <= most:
            allowed = f"allowed: 1 to intake.max_text_chars = {most}"
            raise BadInput("BadFeedback", f"field 'text' has {len(text)} characters; {allowed}")
        return OwnText(text)

    def _of_prediction(self, prediction_id: str, task: str) -> OfPrediction:
        """Nobody may have any topic read by naming it: it must be one whose events have this task."""
        if (parts := _PREDICTION_ID.fullmatch(prediction_id)) is None:
            raise BadInput(
                "BadFeedback", "field 'prediction_id' must be the 'id' of a prediction, review, route or alert"
            )
        if parts["task"] != task:
            raise BadInput(
                "BadFeedback", f"field 'prediction_id' is about task {parts['task']!r}, 'task' says {task!r}"
            )
        source = self._sources.get(parts["topic"])
        if source is None or task not in source.tasks:
            raise BadInput("NotASource", f"no source reads topic {parts['topic']!r} for task {task!r}")
        at = Coordinates(parts["topic"], int(parts["partition"]), int(parts["offset"]))
        identity = parts["identity"]
        return OfPrediction(f"{identity}/{task}", identity, None if parts["redriven"] else at)


def _validated(body: dict[Any, Any]) -> Feedback:
    try:
        return _FEEDBACK.validate_python(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "record"
        raise BadInput("BadFeedback", f"field {field!r}: {first['msg']}") from None
