"""What each annotator says now of each text, folded from all that was ever said. Pure.

    statements, in any order  ->  ledger: the newest statement of each annotator on each text  ->  opinions

The newest is the one labelled last; of two labelled at the same moment, the one that lies further on in the feedback
topic. So a ledger does not depend on the order in which partitions are read, nor on whether a statement comes twice.
Annotators who disagree are all kept: what follows from that is for whoever curates the opinions.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from models.datasets import normalised

OWN_TEXT = "feedback"  # the source of a text that the feedback brought itself

Slot = tuple[str, str]  # the key of a text, and who labels it
End = Literal[
    "labelled",  # the annotator's first label for the text
    "conflicting",  # likewise, and another annotator's differs
    "corrected",  # another label than before
    "confirmed",  # the same label again, later or with another note
    "withdrawn",  # the label no longer counts
    "nothing_to_withdraw",  # no label was there; one that is older than this will not count
    "duplicate",  # the same statement again
    "outdated",  # older than what the annotator said since
    "unknown_label",  # refused: no label of the task
    "no_room",  # refused: the ledger is full
]
REFUSED: frozenset[End] = frozenset({"unknown_label", "no_room"})


@dataclass(frozen=True)
class Opinion:
    """One annotator's current label for one text of one task. Times are in seconds since 1970.

    `key` says which text: "topic/partition/offset" of the event it came in, or `text_key` of a text that the feedback
    brought itself. `event_time_s` is the event's; where that is not known, `labelled_at_s`. `source` is the name of the
    event's source, or `OWN_TEXT`. `predicted`, `score` and `release` say what was served for the text, where known;
    `conversation` is what the event was a part of, if of anything: a split never parts its texts. `at_random` says that
    the text was not chosen by what a release said of it.
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
    at_random: bool = False


@dataclass(frozen=True)
class Withdrawal:
    """An annotator takes back the label for a text."""

    task: str
    key: str
    annotator: str
    labelled_at_s: float


class Position(NamedTuple):
    """Where in the feedback topic a statement lies."""

    partition: int
    offset: int


@dataclass(frozen=True)
class Statement:
    """One record of feedback whose text has been found."""

    said: Opinion | Withdrawal
    at: Position

    @property
    def slot(self) -> Slot:
        """Which of an annotator's labels it is about."""
        return self.said.key, self.said.annotator

    @property
    def rank(self) -> tuple[float, Position]:
        """The greatest of a slot is the one that counts."""
        return self.said.labelled_at_s, self.at


Ledger = Mapping[Slot, Statement]


@dataclass(frozen=True)
class Folded:
    """A ledger after some more statements, and what became of each of them, in their order."""

    ledger: dict[Slot, Statement]
    ends: list[End]


def text_key(text: str) -> str:
    """The key of a text without an event: the same for texts that differ in case and white space alone."""
    digest = hashlib.sha256(normalised(text).encode("utf-8", "surrogatepass"))
    return f"text:{digest.hexdigest()}"


def fold(ledger: Ledger, statements: Iterable[Statement], labels: Collection[str], most: int) -> Folded:
    """The ledger after these statements of one task; the one given stays as it is.

    Args:
        ledger: what was said before.
        statements: what is said now.
        labels: those that the task knows; any other is refused.
        most: slots the ledger may have; what would need one more is refused.
    """
    after, ends = dict(ledger), list[End]()
    said_of = defaultdict[str, dict[str, str]](dict)  # label by annotator, by text
    for one in opinions_of(after):
        said_of[one.key][one.annotator] = one.label
    for statement in statements:
        end = _end(statement, after, said_of, labels, most)
        ends.append(end)
        before = after.get(statement.slot)
        if end in REFUSED or (before is not None and statement.rank <= before.rank):
            continue
        after[statement.slot] = statement
        said = statement.said
        if isinstance(said, Opinion):
            said_of[said.key][said.annotator] = said.label
        else:
            said_of[said.key].pop(said.annotator, None)
    return Folded(after, ends)


def _end(
    new: Statement, ledger: Ledger, said_of: Mapping[str, Mapping[str, str]], labels: Collection[str], most: int
) -> End:
    said, old = new.said, ledger.get(new.slot)
    if isinstance(said, Opinion) and said.label not in labels:
        return "unknown_label"
    if old is None and len(ledger) >= most:
        return "no_room"
    if old is not None and _same(said, old.said):
        return "duplicate"
    if old is not None and new.rank < old.rank:
        return "outdated"
    before = old.said if old is not None else None
    if isinstance(said, Withdrawal):
        return "withdrawn" if isinstance(before, Opinion) else "nothing_to_withdraw"
    if isinstance(before, Opinion):
        return "confirmed" if before.label == said.label else "corrected"
    others = (label for annotator, label in said_of.get(said.key, {}).items() if annotator != said.annotator)
    return "conflicting" if any(label != said.label for label in others) else "labelled"


def _same(one: Opinion | Withdrawal, other: Opinion | Withdrawal) -> bool:
    """Whether two statements of a slot say the same; what was served for the text may have been looked up later."""
    if isinstance(one, Withdrawal) or isinstance(other, Withdrawal):
        return one == other
    return (one.label, one.note, one.labelled_at_s) == (other.label, other.note, other.labelled_at_s)


def opinions_of(ledger: Ledger) -> list[Opinion]:
    """The labels that count, by key and annotator."""
    statements = (ledger[slot] for slot in sorted(ledger))
    return [one.said for one in statements if isinstance(one.said, Opinion)]


def disputed(opinions: Iterable[Opinion]) -> list[str]:
    """The keys of the texts on whose label annotators differ, sorted."""
    labels = defaultdict[str, set[str]](set)
    for one in opinions:
        labels[one.key].add(one.label)
    return sorted(key for key, found in labels.items() if len(found) > 1)
