"""What all systems do alike: check an event, score texts, word a prediction. How these come and go is their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson

from models.windows import Floats
from streams.bench.job import Job

NULL_RELEASE, NULL_LABELS = "null", ("negative", "neutral", "positive")
NULL_ROW = np.array([0.2, 0.3, 0.5], np.float32)

Event = Mapping[str, Any]


class At(NamedTuple):
    """Where the event lies."""

    topic: str
    partition: int
    offset: int


class Scorer(Protocol):
    """Texts to rows of scores."""

    @property
    def release(self) -> str:
        """The release's id."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the columns."""
        ...

    def score(self, texts: Sequence[str]) -> Floats:
        """Calibrated probabilities [texts, labels]."""
        ...


class NullScorer:
    """Constant scores: what is left is the stream."""

    release, labels = NULL_RELEASE, NULL_LABELS

    def score(self, texts: Sequence[str]) -> Floats:
        """The same row for each."""
        return np.broadcast_to(NULL_ROW, (len(texts), len(NULL_ROW)))


def open_scorer(job: Job) -> Scorer:
    """What the job wants."""
    if job.kind == "stream":
        return NullScorer()
    from streams.bench.systems.model import ModelScorer  # loads the runtimes, which the stream job does without

    return ModelScorer(job)


def decode(value: bytes | None) -> Event:
    """The event of a record; raises ValueError when its text is not a string that has characters."""
    return checked(orjson.loads(value or b""))


def checked(event: Any) -> Event:
    """The event, when its text is a string that has characters; else raises ValueError."""
    if not isinstance(event["text"], str) or not event["text"]:
        raise ValueError("text must be a string that is not empty")
    return event  # type: ignore[no-any-return]  # JSON


def predictions(job: Job, scorer: Scorer, events: Sequence[Event], places: Sequence[At]) -> list[dict[str, Any]]:
    """Score a batch: one prediction for each event, with the fields that Streamgauge publishes."""
    rows = scorer.score([event["text"] for event in events])
    best = rows.argmax(axis=1).tolist()
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    release, labels, task = scorer.release, scorer.labels, job.task
    outputs = []
    for event, (topic, partition, offset), row, top in zip(events, places, rows.tolist(), best, strict=True):
        scores = [round(score, 6) for score in row]
        outputs.append(
            {
                "id": f"{topic}/{partition}/{offset}/{task}",
                "event_id": event["id"],
                "event_time": event["ts"],
                "scored_at": now,
                "task": task,
                "release": release,
                "label": labels[top],
                "score": scores[top],
                "scores": dict(zip(labels, scores, strict=True)),
                "out_of_scope": False,
                "source": {"name": "bench", "topic": topic, "partition": partition, "offset": offset},
            }
        )
    return outputs
