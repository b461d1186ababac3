"""What a score means: predictions, alerts, routes, review requests and observations. Pure.

The identity of every output comes from the input's (its coordinates, or its lineage), so that a redelivery repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence

from models.lineage import VERSION
from models.tasks import LabelPolicy
from streams.events import (
    Alert,
    Coordinates,
    Event,
    Observation,
    Output,
    Prediction,
    Reason,
    ReviewRequest,
    Route,
    SourceRef,
)
from streams.live import AlertRule, Served
from streams.settings import SurgeSettings
from streams.trial import Scores

APP_VERSION = VERSION
MAX_EVIDENCE_CHARS = 1000
_new = tuple.__new__  # makes a named tuple in half the time that calling its class takes


def decide(event: Event, results: Sequence[tuple[Served, Scores]], surge: SurgeSettings, now: str) -> list[Output]:
    """Everything one event causes, given its scores by task. `now` is the wall clock as ISO 8601.

    The event is taken apart once and the prediction made right here: done by functions it took half as long again.
    """
    source, at, event_id, event_time, _, _, key, entities, lineage = event
    topic, partition, offset = at
    identity = lineage or f"{topic}/{partition}/{offset}"
    outputs: list[Output] = []
    for served, scores in results:
        best, probabilities = scores
        name, labels, score, familiar_from = served.name, served.labels, probabilities[best], served.familiar_from
        by_label = best == served.outside
        strange = familiar_from is not None and probabilities[-1] < familiar_from
        prediction: Prediction = {
            "id": f"{identity}/{name}",
            "event_id": event_id,
            "event_time": event_time,
            "scored_at": now,
            "task": name,
            "release": served.release,
            "label": labels[best],
            "score": score,
            "scores": dict(zip(labels, probabilities)),  # noqa: B905 - a familiarity may stand behind them
            "out_of_scope": by_label or strange,
            "source": {"name": source, "topic": topic, "partition": partition, "offset": offset},
        }
        outputs.append(_new(Output, ("predictions", key, prediction, -1)))
        denied = strange and not by_label  # it has a label that it is too strange for
        unsure = denied or score < served.review_below
        if unsure:
            outputs.append(Output("review", key, _review(event, prediction, denied)))
        if served.routes:
            outputs.append(Output("routes", key, _route(event, prediction, served.policies[best], unsure)))
        for rule in served.alert_rules:
            if probabilities[rule.column] >= rule.threshold:
                outputs.append(Output("alerts", key, _alert(event, prediction, rule)))
        if entities and name == surge.task:
            outputs += _observations(event, served, scores, surge)
    return outputs


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


def _review(event: Event, prediction: Prediction, denied: bool) -> ReviewRequest:
    reason: Reason = "out-of-scope" if denied else "low-confidence"
    return {**prediction, "id": f"{prediction['id']}/review", "text": event.text, "reason": reason}


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
        "id": f"{event.identity}/observation/{index}",
        "entity": entity,
        "event_time_s": event.event_time_s,
        "hit": hit,
        "score": score,
        "text": event.text[:280],
        "release": release,
    }


def source_ref(source: str, at: Coordinates) -> SourceRef:
    """The `source` field of every output."""
    return {"name": source, "topic": at.topic, "partition": at.partition, "offset": at.offset}
