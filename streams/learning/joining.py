"""Feedback joined to the event it is about: its text, and what was predicted for it.

    Heard  ->  Statement                       the text is there
           ->  NotYet                          nobody knows the event, and it may still come
           ->  Refused                         and it will not

The text comes with the feedback, or from the ledger when somebody has labelled it before, or from the source topic,
where the event still lies as it was scored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from models.learning.opinions import OWN_TEXT, Opinion, Statement, Withdrawal, text_key
from streams.events import Coordinates, Event, Rejected
from streams.learning.feedback import Heard, OfEvent, OfPrediction, OwnText
from streams.learning.prediction_index import Known
from streams.learning.source_texts import Found


class NotYet(NamedTuple):
    """The event is not known; why, for a person."""

    why: str


class Refused(NamedTuple):
    """The text of the feedback cannot be found: what is counted, and why, for a person."""

    end: str
    why: str


Joined = Statement | NotYet | Refused


class Predictions(Protocol):
    """What was predicted; `PredictionIndex` is one."""

    def by_id(self, prediction_id: str) -> Known | None:
        """The prediction of this id."""

    def by_event(self, task: str, event_id: str) -> list[Known]:
        """The first prediction of the task in each topic that has an event of this id."""


class Texts(Protocol):
    """What lies in the sources; `SourceTexts` is one."""

    def find(self, wanted: Collection[Coordinates], on_found: Callable[[], None] = ...) -> dict[Coordinates, Found]:
        """What lies at each place: an event, why it is none, or that nothing is there any more, or not yet."""


@dataclass(frozen=True)
class _Target:
    """The event that a record is about, as far as its ids tell."""

    key: str
    at: Coordinates
    known: Known | None


def join(
    heard: Sequence[Heard],
    labelled: Callable[[str, str], Opinion | None],
    predictions: Predictions,
    texts: Texts,
    chat: Collection[str],
) -> list[Joined]:
    """What each record says of which text, in their order.

    Args:
        heard: records of any tasks.
        labelled: an opinion on the text of a task and key, if somebody has labelled it before.
        predictions: what was predicted.
        texts: what lies in the sources.
        chat: names of the sources whose events belong to conversations.
    """
    targets = [_target(one, predictions) for one in heard]
    lacking = {
        target.at
        for one, target in zip(heard, targets, strict=True)
        if isinstance(target, _Target) and one.label is not None and labelled(one.task, target.key) is None
    }
    found = texts.find(lacking)
    return [_joined(*pair, labelled, found, chat) for pair in zip(heard, targets, strict=True)]


def _target(heard: Heard, predictions: Predictions) -> _Target | Joined:
    """Which event it is about; all there is to say where none has to be looked up."""
    match heard.subject:
        case OwnText(text):
            return _of_own_text(text, heard)
        case OfPrediction(prediction_id, identity, at):
            known = predictions.by_id(prediction_id)
            if known is not None:
                return _Target(identity, known.at, known)
            if at is None:
                return NotYet(f"no prediction has the id {prediction_id!r}, and the event was redriven")
            return _Target(identity, at, None)
        case OfEvent(event_id):
            several = predictions.by_event(heard.task, event_id)
            if not several:
                return NotYet(f"no prediction of task {heard.task!r} has the event id {event_id!r}")
            if len(several) > 1:
                topics = ", ".join(sorted(one.at.topic for one in several))
                return Refused(
                    "ambiguous_event", f"events of several topics have this id ({topics}): give prediction_id"
                )
            return _Target(several[0].identity, several[0].at, several[0])


def _joined(
    heard: Heard,
    target: _Target | Joined,
    labelled: Callable[[str, str], Opinion | None],
    found: Mapping[Coordinates, Found],
    chat: Collection[str],
) -> Joined:
    if not isinstance(target, _Target):
        return target
    if heard.label is None:
        return Statement(Withdrawal(heard.task, target.key, heard.annotator, heard.labelled_at_s), heard.at)
    if (before := labelled(heard.task, target.key)) is not None:
        said = replace(before, **_words(heard, heard.label))
        return Statement(said if before.release else replace(said, **_served(target.known)), heard.at)
    match found[target.at]:
        case Event() as event:
            return Statement(_of_event(event, target, heard, heard.label, chat), heard.at)
        case Rejected() as rejected:
            return Refused("event_rejected", f"the event cannot be read: {rejected.error}: {rejected.message}")
        case "gone":
            return Refused("event_gone", f"the event is no longer at {target.at}: send feedback before it expires")
        case "not yet":
            return NotYet(f"there is no event at {target.at}")
    raise AssertionError(found[target.at])


def _of_own_text(text: str, heard: Heard) -> Statement:
    key, at_s = text_key(text), heard.labelled_at_s
    if heard.label is None:
        return Statement(Withdrawal(heard.task, key, heard.annotator, at_s), heard.at)
    words = _words(heard, heard.label)
    return Statement(Opinion(heard.task, key, text, event_time_s=at_s, source=OWN_TEXT, **words), heard.at)


def _of_event(event: Event, target: _Target, heard: Heard, label: str, chat: Collection[str]) -> Opinion:
    belongs = event.source in chat and event.key != event.event_id
    return Opinion(
        task=heard.task,
        key=target.key,
        text=event.text,
        event_time_s=event.event_time_s,
        source=event.source,
        conversation=event.key if belongs else None,
        **_words(heard, label),
        **_served(target.known),
    )


def _words(heard: Heard, label: str) -> dict[str, Any]:
    """What the annotator said."""
    at_s = heard.labelled_at_s
    said = {"label": label, "annotator": heard.annotator, "labelled_at_s": at_s, "note": heard.note}
    return said | {"at_random": heard.at_random}


def _served(known: Known | None) -> dict[str, Any]:
    """What was served for the text."""
    return {"predicted": known.label, "score": known.score, "release": known.release} if known else {}
