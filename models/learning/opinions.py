"""What each annotator says now of each text: the row that everything in the learning loop reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from models.datasets import normalised

OWN_TEXT = "feedback"  # the source of a text that the feedback brought itself


@dataclass(frozen=True)
class Opinion:
    """One annotator's current label for one text of one task. Times are in seconds since 1970.

    `key` says which text: "topic/partition/offset" of the event it came in, or `text_key` of a text that the feedback
    brought itself. `event_time_s` is the event's; where that is not known, `labelled_at_s`. `source` is the name of the
    event's source, or `OWN_TEXT`. `predicted`, `score` and `release` say what was served for the text, where known;
    `conversation` is what the event was a part of, if of anything: a split never parts its texts.
    """

    task: str
    key: str
    text: str
    label: str
    annotator: str
    labelled_at_s: float
    event_time_s: float
    source: str
    note: str | None = None
    predicted: str | None = None
    score: float | None = None
    release: str | None = None
    conversation: str | None = None


def text_key(text: str) -> str:
    """The key of a text without an event: the same for texts that differ in case and white space alone."""
    digest = hashlib.sha256(normalised(text).encode("utf-8", "surrogatepass"))
    return f"text:{digest.hexdigest()}"
