"""What travels: the three kinds of input event, every output, and the internal `Event` between them.

The wire types are `TypedDict`s: the hot path builds plain dictionaries that mypy checks against them, and pydantic
derives the JSON Schemas that `streamgauge schema` prints. Times on the wire are ISO 8601 UTC.

    record (bytes) -> Event | Rejected -> Prediction, Alert, Route, ReviewRequest | DeadLetter
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Self

from confluent_kafka import Message
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict


class NewsEvent(TypedDict):
    """A headline or article, with the companies it is about."""

    id: NotRequired[str]
    ts: Annotated[str | float, Field(description="ISO 8601 or seconds since 1970")]
    text: str
    title: NotRequired[str]
    symbols: NotRequired[list[str]]


class ChatEvent(TypedDict):
    """One turn of a customer in a conversation."""

    id: NotRequired[str]
    ts: Annotated[str | float, Field(description="ISO 8601 or seconds since 1970")]
    text: str
    conversation: NotRequired[str]


class TransactionEvent(TypedDict):
    """The text of a payment: its memo, the transfer message or the note of a case."""

    id: NotRequired[str]
    ts: Annotated[str | float, Field(description="ISO 8601 or seconds since 1970")]
    text: str
    account: NotRequired[str]
    amount: NotRequired[float]
    currency: NotRequired[str]


class Coordinates(NamedTuple):
    """Where a record lies in Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def of(cls, message: Message) -> Self:
        """Where a message that the broker has stored lies."""
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is None or partition is None or offset is None:
            raise ValueError("the message has no coordinates yet")
        return cls(topic, partition, offset)


class Event(NamedTuple):
    """An input event that passed intake. `key` orders what belongs together.

    `event_time` is ISO 8601 UTC with milliseconds, `event_time_s` the same in seconds since 1970. `lineage` is what an
    event that was redriven goes by instead of its coordinates; see `lineage`.
    """

    source: str
    at: Coordinates
    event_id: str
    event_time: str
    event_time_s: float
    text: str
    key: str
    entities: tuple[str, ...] = ()
    lineage: str | None = None

    @property
    def identity(self) -> str:
        """What the ids of its outputs begin with, the same again on redelivery."""
        at = self.at
        return self.lineage or f"{at.topic}/{at.partition}/{at.offset}"


Stage = Literal["intake", "scoring", "shed", "feedback"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """An input that cannot go on: at which stage, the class of error, and a message for the person who mends it.

    `attempts` is how often the stage tried it, `release` whose model it failed on.
    """

    at: Coordinates
    stage: Stage
    error: str
    message: str
    attempts: int = 1
    release: str | None = None


OutputName = Literal[
    "predictions", "alerts", "routes", "review", "dead_letters", "shed", "observations", "surge_state", "shadow"
]  # by the names of their settings; see `settings.OUTPUT_TOPICS`


class Output(NamedTuple):
    """One record to publish: which output, the message key, a JSON object or bytes. None is a tombstone."""

    name: OutputName
    key: str
    value: Mapping[str, Any] | bytes | None
    partition: int = -1  # -1: by the key


class SourceRef(TypedDict):
    """Where the input came from."""

    name: str
    topic: str
    partition: int
    offset: int


class Prediction(TypedDict):
    """One event scored by one task. `score` is the calibrated probability of `label`."""

    id: Annotated[str, Field(description="topic/partition/offset/task: the same again on redelivery")]
    event_id: str
    event_time: str
    scored_at: str
    task: str
    release: str
    label: str
    score: Annotated[float, Field(ge=0, le=1)]
    scores: dict[str, float]
    out_of_scope: Annotated[bool, Field(description="the text is about none of the labels: do not act on `label`")]
    source: SourceRef


class Alert(Prediction):
    """Something the risk desk should see: a risky event, or a surge of negative events about one entity."""

    kind: Literal["risk", "surge"]
    state: Literal["open", "resolved"]
    severity: Literal["low", "medium", "high"]
    subject: Annotated[str, Field(description="the account, conversation or entity it is about")]
    evidence: Annotated[
        dict[str, Any],
        Field(description="the text, and if asked for its telling words, or the window's counts and top headlines"),
    ]


class Route(Prediction):
    """Where a chat turn goes: a queue, an answer template, or a person."""

    action: Literal["queue", "template", "human"]
    queue: str
    template: str | None
    conversation: str
    text: Annotated[str, Field(description="the chat turn, its first 1,000 characters")]


Reason = Literal["low-confidence", "out-of-scope", "informative", "random"]


class ReviewRequest(Prediction):
    """A prediction the model is not sure of: a person should label it."""

    text: str
    reason: Annotated[
        Reason,
        Field(
            description="the score is low; or the text is too strange for any label, whatever the score; or its label"
            " would teach the model most; or it was drawn at random, to measure the accuracy"
        ),
    ]


class Feedback(TypedDict):
    """A person's label for a text, or that it no longer counts.

    The text is that of the event of `prediction_id`; without one, of `event_id`; without either it is `text`. Of one
    annotator's records on a text and task the last by `labelled_at` counts.
    """

    task: Annotated[str, Field(min_length=1, max_length=64)]
    annotator: Annotated[str, Field(min_length=1, max_length=200)]
    labelled_at: Annotated[str | float, Field(description="ISO 8601 or seconds since 1970")]
    action: NotRequired[Literal["label", "withdraw"]]  # left out: label
    label: NotRequired[Annotated[str, Field(min_length=1, max_length=200, description="unless withdrawn")]]
    prediction_id: NotRequired[
        Annotated[str, Field(max_length=1024, description="`id` of the prediction, or of its review, route or alert")]
    ]
    event_id: NotRequired[Annotated[str, Field(min_length=1, max_length=512, description="of the prediction")]]
    text: NotRequired[str]
    note: NotRequired[Annotated[str, Field(max_length=4000)]]
    at_random: NotRequired[
        Annotated[
            bool,
            Field(
                description="the text was not chosen by what a release said of it: drawn by lot, or all are labelled;"
                " such labels, and those of review requests with reason `random`, judge a challenger"
            ),
        ]
    ]


class ReleaseRef(TypedDict):
    """A release, where it is found, and the hash that says whether it is the one that was meant."""

    reference: Annotated[
        str, Field(min_length=1, max_length=4096, description="models:/TASK/VERSION, a release id, or a directory")
    ]
    release: Annotated[str, Field(min_length=1, max_length=500)]
    sha256: Annotated[
        str, Field(pattern=r"^[0-9a-f]{64}$", description="of its manifest, which has those of all files")
    ]


ReleaseRole = Literal["champion", "challenger"]
ReleaseMode = Literal["serve", "shadow", "canary"]


class Release(ReleaseRef):
    """Which release a task has in a role from now on. The record's key is task/role; a null value ends the role."""

    task: Annotated[str, Field(min_length=1, max_length=200)]
    role: ReleaseRole
    mode: Annotated[
        ReleaseMode,
        Field(description="a champion serves; a challenger scores beside it (shadow) or a share of the keys (canary)"),
    ]
    share: Annotated[float, Field(ge=0, le=1, description="of the events, by the hash of their key")]
    promoted_at: str
    promoted_by: Annotated[str, Field(max_length=500)]
    previous: Annotated[ReleaseRef | None, Field(description="what had the role before: a rollback goes there")]
    why: NotRequired[Annotated[str, Field(max_length=1000, description="what led to it, where a job did it")]]
    watched_until: NotRequired[
        Annotated[str, Field(max_length=40, description="an alarm before then lets `previous` serve again by itself")]
    ]


class Scored(TypedDict):
    """What one release says of a text."""

    release: str
    label: str
    score: Annotated[float, Field(ge=0, le=1)]


class ShadowScore(TypedDict):
    """Internal: champion and challenger on the same event; one of them served it, see `mode`."""

    id: Annotated[str, Field(description="that of the prediction, then /shadow/ and the challenger's release")]
    event_id: str
    event_time: str
    scored_at: str
    task: str
    mode: ReleaseMode
    champion: Scored
    challenger: Scored
    source: SourceRef


class Movement(TypedDict):
    """How far something has moved, and from where on that is drift."""

    quantity: Annotated[
        str, Field(description="label, confidence, length, unknown, meaning, expected accuracy or calibration")
    ]
    value: float
    limit: float


class DriftAlarm(TypedDict):
    """What a model reads is no longer what it was made with, or its scores no longer say how often it is right."""

    id: Annotated[str, Field(description="the same for an alarm that is opened, wants something else, and is resolved")]
    task: str
    release: str
    state: Literal["open", "resolved"]
    wants: Annotated[
        Literal["labels", "retrain"],
        Field(description="people's labels; or training, as there are enough of them"),
    ]
    opened_at: str
    at: str
    moved: list[Movement]
    events: Annotated[int, Field(description="predictions that were looked at")]
    expected_accuracy: Annotated[float | None, Field(description="their mean score")]
    expected_accuracy_at_release: Annotated[float, Field(description="the same of the development texts")]
    labelled: Annotated[int, Field(description="predictions of this release that people have labelled")]
    labelled_accuracy: Annotated[float | None, Field(description="how many of these were right")]
    new_labels: int
    why: NotRequired[
        Annotated[str, Field(max_length=1000, description="what a retraining lacked, that wants labels instead")]
    ]


class DeadLetter(TypedDict):
    """An input that could not be processed or was shed, with its original bytes (base64), where it came from and why.

    A null value instead says that the letter named in the record's headers was redriven.
    """

    id: Annotated[str, Field(description="topic/partition/offset/dead-letter: the same again on redelivery")]
    origin: Annotated[str, Field(description="topic/partition/offset where the event lay first, before any redrive")]
    source: Annotated[SourceRef, Field(description="where it lies now")]
    timestamp: Annotated[str | None, Field(description="the broker's time stamp of the event, before any redrive")]
    stage: Stage
    error: Annotated[str, Field(description="the class of error")]
    message: Annotated[str, Field(description="for a person; at most 1 KiB")]
    attempts: Annotated[int, Field(ge=1, description="how often the stage tried it, this time")]
    redrives: Annotated[int, Field(ge=0, description="how often it was redriven before")]
    release: Annotated[str | None, Field(description="the release whose model it failed on, if any")]
    trace_id: Annotated[str, Field(description="of its W3C traceparent header, else derived from `origin`")]
    key_base64: str | None
    value_base64: str | None
    headers_base64: list[tuple[str, str | None]]
    truncated: Annotated[bool, Field(description="too large or unreadable: not all of the bytes are here")]
    first_seen_at: Annotated[str, Field(description="when the event first became a dead letter")]
    failed_at: str
    app_version: str


class Observation(TypedDict):
    """Internal: what one scored event says about one entity."""

    id: str
    entity: str
    event_time_s: Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
    hit: bool
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    text: str
    release: str


_CALENDAR_BEGINS_S, _CALENDAR_ENDS_S = -62_135_596_800, 253_402_300_799


def iso(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 UTC with milliseconds; beyond what a calendar holds, the nearest end."""
    if not _CALENDAR_BEGINS_S <= seconds <= _CALENDAR_ENDS_S:
        seconds = _CALENDAR_BEGINS_S if seconds < 0 else _CALENDAR_ENDS_S
    second, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{_second(second)}.{thousandths:03d}Z"


@lru_cache(4096)  # events come many a second, and formatting a calendar is a tenth of what an event costs
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


WIRE_TYPES: dict[str, Any] = {
    "news": NewsEvent,
    "chat": ChatEvent,
    "transactions": TransactionEvent,
    "predictions": Prediction,
    "alerts": Alert,
    "routes": Route,
    "review": ReviewRequest,
    "dead-letters": DeadLetter,
    "shed": DeadLetter,
    "feedback": Feedback,
    "releases": Release,
    "drift": DriftAlarm,
}


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of every public topic's values, by topic."""
    return {topic: TypeAdapter(wire).json_schema() for topic, wire in WIRE_TYPES.items()}
