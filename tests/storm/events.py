"""The storm's events by number, good and poison, and what must become of each.

The expectation is written from what the topics promise, not with the code that keeps it: outputs by name, the end of
their id and their label; for poison the stage and class of its dead letter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from models.tasks import Task, load_task
from tests.storm.model import BREAKS_MODEL, BREAKS_TOKENISER, NOT_FINITE, labels_of, scores_of

SOURCES = ("news", "chat", "transactions")
TASKS: Mapping[str, tuple[str, ...]] = {
    "news": ("sentiment",),
    "chat": ("intent",),
    "transactions": ("risk", "sentiment"),
}
KEY_FIELD = {"chat": "conversation", "transactions": "account"}
KEYS = 60  # of each source
MAX_EVENT_BYTES = 20_000
NUMBER_HEADER = "number"
_FIRST = datetime(2026, 1, 5, tzinfo=UTC)
_WORDS = ("bank", "card", "loan", "shares", "parcel", "fraud", "rent", "refund")


class Expected(NamedTuple):
    """One output: the topic's name in the settings, its id after the coordinates, its label ("" for none)."""

    output: str
    suffix: str
    label: str


class Verdict(NamedTuple):
    """What the dead letter of a poison event must say."""

    stage: str
    error: str


def source_of(number: int) -> str:
    """The source of an event; its topic has the same name."""
    return SOURCES[number % len(SOURCES)]


def key_of(number: int) -> str:
    """What orders events, and the key of the record."""
    return f"{source_of(number)[0].upper()}{number // len(SOURCES) % KEYS}"


def text_of(number: int) -> str:
    """Its own for each number, 3 to 11 words."""
    return " ".join(_WORDS[(number * 7 + place * 3) % 8] for place in range(1 + number % 9)) + f" number {number}"


def event_of(number: int) -> dict[str, Any]:
    """A good event."""
    source, key = source_of(number), key_of(number)
    body = {"id": f"e{number}", "ts": (_FIRST + timedelta(seconds=number)).isoformat(), "text": text_of(number)}
    return body | ({"symbols": entities_of(number)} if source == "news" else {KEY_FIELD[source]: key})


def entities_of(number: int) -> list[str]:
    """The companies of a news event, the first of them its key."""
    return [key_of(number), f"X{number % 5}"][: 1 + number % 2]


def value_of(number: int, poison: str | None) -> bytes | None:
    """The bytes of the record; `poison` names a kind."""
    if poison is None:
        return json.dumps(event_of(number)).encode()
    return POISON[poison][0](number)


def expected_outputs(number: int) -> list[Expected]:
    """Every output a good event must have, each once."""
    found = []
    source, text = source_of(number), text_of(number)
    for name in TASKS[source]:
        task, labels, scores = _task(name), labels_of(name), scores_of(text, name)
        best = max(range(len(labels)), key=scores.__getitem__)
        label, unsure = labels[best], scores[best] < task.review_below
        found.append(Expected("predictions", name, label))
        if unsure:
            found.append(Expected("review", f"{name}/review", label))
        if any(policy.queue for policy in task.labels.values()):
            found.append(Expected("routes", f"{name}/route", label))
        for one, score in zip(labels, scores, strict=True):
            threshold = task.policy(one).alert_above
            if threshold is not None and score >= threshold:
                found.append(Expected("alerts", f"{name}/alert/{one}", one))
    if source == "news":
        found += [Expected("observations", f"observation/{place}", "") for place in range(len(entities_of(number)))]
    return found


@cache
def _task(name: str) -> Task:
    return load_task(name)


def _with(number: int, **fields: object) -> bytes:
    return json.dumps(event_of(number) | fields).encode()


POISON: Mapping[str, tuple[Callable[[int], bytes | None], Verdict]] = {
    "not-utf8": (lambda n: b"\xff\xfe %d" % n, Verdict("intake", "NotUtf8")),
    "not-json": (lambda n: b"{'id': %d}" % n, Verdict("intake", "NotJson")),
    "not-an-object": (lambda n: b"[%d]" % n, Verdict("intake", "WrongShape")),
    "too-deep": (lambda n: b'{"id": %d, "a": %s}' % (n, b"[" * 60 + b"]" * 60), Verdict("intake", "TooDeep")),
    "no-text": (lambda n: _with(n, text=None), Verdict("intake", "EmptyText")),
    "text-is-a-number": (lambda n: _with(n, text=n), Verdict("intake", "WrongShape")),
    "not-finite": (lambda n: _with(n, amount=float("nan")), Verdict("intake", "NotFinite")),
    "bad-time": (lambda n: _with(n, ts="2999-01-01T00:00:00Z"), Verdict("intake", "BadTime")),
    "tombstone": (lambda n: None, Verdict("intake", "NullValue")),
    "too-large": (lambda n: _with(n, more="x" * MAX_EVENT_BYTES), Verdict("intake", "TooLarge")),
    "breaks-the-model": (lambda n: _with(n, text=f"{BREAKS_MODEL} {n}"), Verdict("scoring", "ModelFailed")),
    "breaks-the-tokeniser": (lambda n: _with(n, text=f"{BREAKS_TOKENISER} {n}"), Verdict("scoring", "ModelFailed")),
    "scores-not-finite": (lambda n: _with(n, text=f"{NOT_FINITE} {n}"), Verdict("scoring", "ModelFailed")),
}
