"""What curation makes of opinions: texts with an agreed label to learn from, and texts set aside, with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from models.near_duplicates import ALIKE

Reason = Literal[
    "duplicate",  # the same text under another key: kept once
    "near-duplicate",  # nearly a text that is kept, with the same label
    "known",  # nearly a text of the training data, with the same label
    "leak",  # nearly a text of the frozen hold-out
    "quota",  # its label has enough texts
    "conflict",  # annotators disagree, and none of them is clearly right
    "contradiction",  # a text of the training data, with another label
    "label-error",  # the other texts speak for another label
    "annotator",  # all that its annotators label is quarantined
    "burst",  # labelled faster than a person reads, or than a source brings texts
    "share",  # one annotator or one source would have too great a part of its label
]
QUARANTINE: frozenset[Reason] = frozenset({"conflict", "contradiction", "label-error", "annotator", "burst", "share"})


@dataclass(frozen=True)
class Curated:
    """One text with its agreed label.

    `weight`, above 0 and at most 1, is how probable it is that the label is right; `annotators`, sorted, gave it.
    """

    key: str
    text: str
    label: str
    weight: float
    event_time_s: float
    source: str
    annotators: tuple[str, ...]
    conversation: str | None = None


@dataclass(frozen=True)
class SetAside:
    """A text that is not learned from, and why; `detail` is a sentence for a person."""

    key: str
    reason: Reason
    detail: str

    @property
    def quarantined(self) -> bool:
        """Whether a person should look: the label may be wrong, or somebody means harm."""
        return self.reason in QUARANTINE


@dataclass(frozen=True)
class AnnotatorGrade:
    """What an annotator's labels are worth."""

    opinions: int  # texts labelled
    shared: int  # of these, labelled by others too
    agreement: float  # 0..1: how often the others, and what they taught a judge, hold the same
    weight: float  # 0..1: the estimated probability that a label of theirs is right
    quarantined: str | None = None  # why none of their labels count until a person has looked


@dataclass(frozen=True)
class Curation:
    """Every text that somebody labelled, either kept or set aside, and a grade for each annotator."""

    kept: tuple[Curated, ...]
    set_aside: tuple[SetAside, ...]
    annotators: Mapping[str, AnnotatorGrade]


REASONS: tuple[Reason, ...] = get_args(Reason)


class CurationSettings(BaseModel):
    """What curation lets pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trusted: frozenset[str] = Field(
        default=frozenset(), description="annotators whom a person vouches for: never quarantined, no share"
    )
    least_agreement: float = Field(
        default=0.75,
        ge=0,
        le=1,
        description="who surely agrees with the others less than so many times as often as usual",
    )
    least_compared: int = Field(default=10, ge=2, description="opinions, before agreement says anything")
    least_certainty: float = Field(default=0.7, ge=0, le=1, description="of a label on which annotators disagree")
    most_lost: float = Field(
        default=0.03,
        ge=0,
        le=1,
        description="of right labels, to the search for wrong ones; measured on training texts",
    )
    burst_window_s: float = Field(default=600, gt=0)
    burst_annotator: int = Field(default=120, ge=1, description="most opinions of one annotator in the window")
    burst_source: int = Field(default=2000, ge=1, description="most opinions on texts of one source in the window")
    annotator_share: float = Field(default=0.2, gt=0, le=1, description="of a label's texts, those trained on included")
    source_share: float = Field(default=0.5, gt=0, le=1, description="the same for one source")
    free_texts: int = Field(default=10, ge=0, description="of a label, from one annotator or source whatever the share")
    most_of_label: int = Field(default=2000, ge=1, description="texts kept of one label, the newest")
    alike: float = Field(default=ALIKE, gt=0, le=1, description="how similar near-duplicates are at least")
    seed: int = 7
