"""What a score means: predictions, alerts, routes, review requests and observations. Pure.

The identity of every output comes from the input's coordinates, so that a redelivery repeats it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from models.tasks import LabelPolicy
from streams.events import (
    Alert,
    Coordinates,
    DeadLetter,
    Event,
    Observation,
    Prediction,
    Rejected,
    ReviewRequest,
    Route,
    SourceRef,
)
from streams.intake import Record
from streams.scoring import Scored
from streams.settings import SurgeSettings

APP_VERSION = "0.1.0"
MAX_EVIDENCE_CHARS = 1000

OutputName = Literal["predictions", "alerts", "routes", "review", "dead_letters", "observations"]


class Output(NamedTuple):
    """One record to publish: which output, the message key, the value."""

    name: OutputName
    key: str
    value: Mapping[str, Any]


def decide(event: Event, scored: Mapping[str, Scored], surge: SurgeSettings, now_s: float) -> list[Output]:
    """Everything one event causes, given its scores by task. `now_s` is the wall clock, seconds since 1970."""
    outputs: list[Output] = []
    for task, result in scored.items():
        outputs += _decide_task(event, task, result, now_s)
        if task == surge.task and event.entities:
            outputs += _observations(event, result, surge)
    return outputs


def _decide_task(event: Event, task: str, result: Scored, now_s: float) -> list[Output]:
    served = result.served
    prediction = _prediction(event, task, result, now_s)
    outputs = [Output("predictions", event.key, prediction)]
    policy = served.task.policy(prediction["label"])
    unsure = prediction["score"] < served.task.review_below
    if unsure:
        outputs.append(Output("review", event.key, _review(event, prediction)))
    if any(one.queue for one in served.task.labels.values()):
        outputs.append(Output("routes", event.key, _route(event, prediction, policy, unsure)))
    for label, score in prediction["scores"].items():
        at_label = served.task.policy(label)
        if at_label.alert_above is not None and score >= at_label.alert_above:
            outputs.append(Output("alerts", event.key, _alert(event, prediction, label, score, at_label)))
    return outputs


def _prediction(event: Event, task: str, result: Scored, now_s: float) -> Prediction:
    classifier = result.served.classifier
    best = int(result.probabilities.argmax())
    scores = [round(one, 6) for one in result.probabilities.tolist()]
    return {
        "id": f"{event.at}/{task}",
        "event_id": event.event_id,
        "event_time": iso(event.event_time_s),
        "scored_at": iso(now_s),
        "task": task,
        "release": classifier.release,
        "label": classifier.labels[best],
        "score": scores[best],
        "scores": dict(zip(classifier.labels, scores, strict=True)),
        "source": source_ref(event.source, event.at),
    }


def _alert(event: Event, prediction: Prediction, label: str, score: float, policy: LabelPolicy) -> Alert:
    return {
        **prediction,
        "id": f"{prediction['id']}/alert/{label}",
        "label": label,
        "score": score,
        "kind": "risk",
        "state": "open",
        "severity": policy.severity,
        "subject": event.key,
        "evidence": {"text": event.text[:MAX_EVIDENCE_CHARS], "threshold": policy.alert_above},
    }


def _route(event: Event, prediction: Prediction, policy: LabelPolicy, unsure: bool) -> Route:
    to_human = unsure or policy.queue is None or policy.queue == "human"
    return {
        **prediction,
        "id": f"{prediction['id']}/route",
        "action": "human" if to_human else "template" if policy.template else "queue",
        "queue": "human" if to_human or policy.queue is None else policy.queue,
        "template": None if to_human else policy.template,
        "conversation": event.key,
        "text": event.text[:MAX_EVIDENCE_CHARS],
    }


def _review(event: Event, prediction: Prediction) -> ReviewRequest:
    return {**prediction, "id": f"{prediction['id']}/review", "text": event.text, "reason": "low-confidence"}


def _observations(event: Event, result: Scored, surge: SurgeSettings) -> list[Output]:
    labels = result.served.classifier.labels
    best = labels[int(result.probabilities.argmax())]
    score = float(result.probabilities[labels.index(surge.label)]) if surge.label in labels else 0.0
    return [
        Output("observations", entity, _observation(event, index, entity, best == surge.label, score, result))
        for index, entity in enumerate(event.entities)
    ]


def _observation(event: Event, index: int, entity: str, hit: bool, score: float, result: Scored) -> Observation:
    return {
        "id": f"{event.at}/observation/{index}",
        "entity": entity,
        "event_time_s": event.event_time_s,
        "hit": hit,
        "score": round(score, 6),
        "text": event.text[:280],
        "release": result.served.release,
    }


def dead_letter(record: Record, source: str, rejected: Rejected, now_s: float) -> Output:
    """The record that cannot go on, whole, with why."""
    value: DeadLetter = {
        "id": f"{rejected.at}/dead-letter",
        "source": source_ref(source, rejected.at),
        "timestamp": iso(record.timestamp / 1000) if record.timestamp is not None and record.timestamp > 0 else None,
        "stage": rejected.stage,
        "error": rejected.error,
        "message": rejected.message,
        "key_base64": _base64(record.key),
        "value_base64": _base64(record.value),
        "headers_base64": _headers(record.headers),
        "failed_at": iso(now_s),
        "app_version": APP_VERSION,
    }
    return Output("dead_letters", str(rejected.at), value)


def source_ref(source: str, at: Coordinates) -> SourceRef:
    """The `source` field of every output."""
    return {"name": source, "topic": at.topic, "partition": at.partition, "offset": at.offset}


def iso(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 UTC with milliseconds; beyond what a calendar holds, the nearest end."""
    bounded = min(max(seconds, -62_135_596_800.0), 253_402_300_799.0)
    return datetime.fromtimestamp(bounded, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _headers(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, str | None]]:
    return [(name, _base64(value)) for name, value in headers or ()]


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
