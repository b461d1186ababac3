"""What a score means: predictions, alerts, routes, review requests and observations. Pure.

The identity of every output comes from the input's coordinates, so that a redelivery repeats it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from models.tasks import LabelPolicy
from streams.events import (
    Alert,
    Coordinates,
    DeadLetter,
    Event,
    Observation,
    Output,
    Prediction,
    Rejected,
    ReviewRequest,
    Route,
    SourceRef,
    iso,
)
from streams.intake import Record
from streams.live import AlertRule, Served
from streams.settings import SurgeSettings
from streams.trial import Scores

APP_VERSION = "0.1.0"
MAX_EVIDENCE_CHARS = 1000


def decide(event: Event, results: Sequence[tuple[Served, Scores]], surge: SurgeSettings, now: str) -> list[Output]:
    """Everything one event causes, given its scores by task. `now` is the wall clock as ISO 8601."""
    outputs: list[Output] = []
    for served, scores in results:
        prediction = _prediction(event, served, scores, now)
        outputs.append(Output("predictions", event.key, prediction))
        unsure = prediction["score"] < served.task.review_below
        if unsure:
            outputs.append(Output("review", event.key, _review(event, prediction)))
        if served.routes:
            outputs.append(Output("routes", event.key, _route(event, prediction, served.policies[scores[0]], unsure)))
        for rule in served.alert_rules:
            if scores[1][rule.column] >= rule.threshold:
                outputs.append(Output("alerts", event.key, _alert(event, prediction, rule)))
        if event.entities and served.name == surge.task:
            outputs += _observations(event, served, scores, surge)
    return outputs


def _prediction(event: Event, served: Served, scores: Scores, now: str) -> Prediction:
    best, probabilities = scores
    task, labels, at = served.name, served.labels, event.at
    return {
        "id": f"{at.topic}/{at.partition}/{at.offset}/{task}",
        "event_id": event.event_id,
        "event_time": event.event_time,
        "scored_at": now,
        "task": task,
        "release": served.release,
        "label": labels[best],
        "score": probabilities[best],
        "scores": dict(zip(labels, probabilities)),  # noqa: B905 - as long as each other since the model was loaded
        "source": source_ref(event.source, at),
    }


def _alert(event: Event, prediction: Prediction, rule: AlertRule) -> Alert:
    return {
        **prediction,
        "id": f"{prediction['id']}/alert/{rule.label}",
        "label": rule.label,
        "score": prediction["scores"][rule.label],
        "kind": "risk",
        "state": "open",
        "severity": rule.policy.severity,
        "subject": event.key,
        "evidence": {"text": event.text[:MAX_EVIDENCE_CHARS], "threshold": rule.threshold},
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


def _observations(event: Event, served: Served, scores: Scores, surge: SurgeSettings) -> list[Output]:
    best, probabilities = scores
    labels = served.labels
    hit = labels[best] == surge.label
    score = probabilities[labels.index(surge.label)] if surge.label in labels else 0.0
    return [
        Output("observations", entity, _observation(event, index, entity, hit, score, served.release))
        for index, entity in enumerate(event.entities)
    ]


def _observation(event: Event, index: int, entity: str, hit: bool, score: float, release: str) -> Observation:
    return {
        "id": f"{event.at}/observation/{index}",
        "entity": entity,
        "event_time_s": event.event_time_s,
        "hit": hit,
        "score": score,
        "text": event.text[:280],
        "release": release,
    }


def dead_letter(record: Record, source: str, rejected: Rejected, now_s: float) -> Output:
    """The record that cannot go on, whole, with why; what was shed has a topic of its own."""
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
    return Output("shed" if rejected.stage == "shed" else "dead_letters", str(rejected.at), value)


def source_ref(source: str, at: Coordinates) -> SourceRef:
    """The `source` field of every output."""
    return {"name": source, "topic": at.topic, "partition": at.partition, "offset": at.offset}


def _headers(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, str | None]]:
    return [(name, _base64(value)) for name, value in headers or ()]


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode("ascii")
