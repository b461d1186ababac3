from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import pytest

from models.learning.opinions import Opinion, Statement, Withdrawal, text_key
from streams.events import Coordinates, Event, Rejected
from streams.learning.feedback import Heard, OfEvent, OfPrediction, OwnText
from streams.learning.joining import Joined, NotYet, Refused, join
from streams.learning.prediction_index import Known
from streams.learning.source_texts import Found
from tests.streams.records import FakeRecord

AT = Coordinates("chat", 0, 5)
EVENT = Event("chat", AT, "e5", "2026-11-02T10:00:00.000Z", 1000.0, "where is my card", "c-7")
KNOWN = Known("chat/0/5/intent", "intent", "e5", AT, "card_arrival", 0.4, "intent-1", 1001.0)
OF_ID = OfPrediction("chat/0/5/intent", "chat/0/5", AT)
REDRIVEN = "chat/0/5/redriven-0123456789abcdef"
TOLD = "lost_card"


class Predictions:
    """A handful of predictions."""

    def __init__(self, *known: Known) -> None:
        self._known = known

    def by_id(self, prediction_id: str) -> Known | None:
        return next((one for one in self._known if one.id == prediction_id), None)

    def by_event(self, task: str, event_id: str) -> list[Known]:
        return [one for one in self._known if (one.task, one.event_id) == (task, event_id)]


class Texts:
    """What lies at a few places, and which were asked for."""

    def __init__(self, found: dict[Coordinates, Found]) -> None:
        self._found = found
        self.asked = set[Coordinates]()

    def find(
        self, wanted: Collection[Coordinates], on_found: Callable[[], None] = lambda: None
    ) -> dict[Coordinates, Found]:
        self.asked |= set(wanted)
        return {at: self._found[at] for at in wanted}


def heard(subject: OwnText | OfPrediction | OfEvent, label: str | None = TOLD, annotator: str = "ann") -> Heard:
    return Heard(FakeRecord(b"", 3, "feedback", 1), "intent", subject, label, annotator, 2000.0, "sure")


def knows(*labelled: Opinion) -> Callable[[str, str], Opinion | None]:
    by_key = {(opinion.task, opinion.key): opinion for opinion in labelled}
    return lambda task, key: by_key.get((task, key))


def joined(one: Heard, *known: Known, found: Found = EVENT, labelled: Collection[Opinion] = ()) -> Joined:
    before = knows(*labelled)
    (result,) = join(
        [one], before, Predictions(*known), Texts(dict.fromkeys([AT, *(one.at for one in known)], found)), {"chat"}
    )
    return result


def said(of: Joined) -> Opinion:
    assert isinstance(of, Statement) and isinstance(of.said, Opinion), of
    assert of.at == (1, 3)
    return of.said


EXPECTED = Opinion(
    "intent", "chat/0/5", "where is my card", TOLD, "ann", 2000.0, 1000.0, "chat", "sure",
    "card_arrival", 0.4, "intent-1", "c-7",
)  # fmt: skip


@pytest.mark.parametrize("subject", [OF_ID, OfEvent("e5")])
def test_a_label_finds_the_text_and_what_was_served(subject: OfPrediction | OfEvent) -> None:
    assert said(joined(heard(subject), KNOWN)) == EXPECTED


def test_an_id_finds_the_text_of_a_prediction_that_is_forgotten() -> None:
    assert said(joined(heard(OF_ID))) == replace(EXPECTED, predicted=None, score=None, release=None)


def test_own_text_needs_nobody() -> None:
    opinion = said(joined(heard(OwnText("Where is my CARD"))))
    assert (opinion.key, opinion.source, opinion.event_time_s) == (text_key("where is my card"), "feedback", 2000.0)
    withdrawn = joined(heard(OwnText("where is my card"), None))
    assert isinstance(withdrawn, Statement) and withdrawn.said == Withdrawal("intent", opinion.key, "ann", 2000.0)


def test_a_text_that_somebody_has_labelled_is_not_looked_up_again() -> None:
    before = replace(EXPECTED, label="card_arrival", annotator="bob", labelled_at_s=7.0, note=None)
    assert said(joined(heard(OF_ID), found="gone", labelled=[before])) == EXPECTED
    unknown_then = replace(before, predicted=None, score=None, release=None)
    assert said(joined(heard(OF_ID), KNOWN, found="gone", labelled=[unknown_then])) == EXPECTED
    texts = Texts({})
    join([heard(OF_ID), heard(OF_ID, None)], knows(before), Predictions(), texts, ())
    assert texts.asked == set()


def test_each_place_is_looked_at_once() -> None:
    texts = Texts({AT: EVENT})
    results = join([heard(OF_ID), heard(OfEvent("e5"), annotator="bob")], knows(), Predictions(KNOWN), texts, {"chat"})
    assert texts.asked == {AT}
    assert [said(one).annotator for one in results] == ["ann", "bob"]


def test_a_withdrawal_needs_no_text() -> None:
    for found in ("gone", "not yet"):
        withdrawn = joined(heard(OF_ID, None), found=found)
        assert isinstance(withdrawn, Statement) and withdrawn.said == Withdrawal("intent", "chat/0/5", "ann", 2000.0)


def test_a_redriven_event_lies_where_its_prediction_says() -> None:
    subject = OfPrediction(f"{REDRIVEN}/intent", REDRIVEN, None)
    assert isinstance(joined(heard(subject)), NotYet)
    known = KNOWN._replace(id=f"{REDRIVEN}/intent", at=Coordinates("chat", 0, 90))
    opinion = said(joined(heard(subject), known))
    assert (opinion.key, opinion.text) == (REDRIVEN, EVENT.text)


def test_events_without_a_conversation_have_none() -> None:
    assert said(joined(heard(OF_ID), found=EVENT._replace(key="e5"))).conversation is None
    assert said(joined(heard(OF_ID), found=EVENT._replace(source="news"))).conversation is None


@pytest.mark.parametrize(
    ("subject", "known", "found", "end"),
    [
        (OfEvent("e5"), [], EVENT, None),
        (OF_ID, [], "not yet", None),
        (OF_ID, [], "gone", "event_gone"),
        (OF_ID, [], Rejected(AT, "intake", "TooLarge", "too large"), "event_rejected"),
        (OfEvent("e5"), [KNOWN, KNOWN._replace(at=Coordinates("tickets", 0, 1))], EVENT, "ambiguous_event"),
    ],
)
def test_what_has_no_text_waits_or_is_refused(
    subject: OfPrediction | OfEvent, known: list[Known], found: Found, end: str | None
) -> None:
    result = joined(heard(subject), *known, found=found)
    assert isinstance(result, NotYet) if end is None else isinstance(result, Refused) and result.end == end
