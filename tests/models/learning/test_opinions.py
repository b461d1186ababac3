from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learning.opinions import (
    End,
    Opinion,
    Position,
    Statement,
    disputed,
    fold,
    opinions_of,
    text_key,
)
from tests.models.learning.rows import label, withdraw

LABELS = ("smishing", "ham")
ROOM = 1000


def ends(*statements: Statement, most: int = ROOM) -> list[End]:
    return fold({}, statements, LABELS, most).ends


def labels(*statements: Statement) -> list[str]:
    return [one.label for one in opinions_of(fold({}, statements, LABELS, ROOM).ledger)]


def test_a_text_has_the_same_key_however_it_is_spaced_and_capitalised() -> None:
    assert text_key("Your parcel  is\nheld") == text_key("your parcel is held") != text_key("your parcel was held")
    assert text_key("x").startswith("text:") and len(text_key("x")) == 5 + 64


@pytest.mark.parametrize(
    ("second", "end", "left"),
    [
        (label("ham", 2.0), "corrected", ["ham"]),
        (label("smishing", 2.0), "confirmed", ["smishing"]),
        (label("smishing", 1.0, note="sure"), "outdated", ["smishing"]),  # it lies before the first
        (label("smishing", 1.0, offset=8), "duplicate", ["smishing"]),
        (label("ham", 0.5), "outdated", ["smishing"]),
        (label("ham", 1.0, offset=8), "corrected", ["ham"]),  # the same moment: the later one in the topic
        (label("ham", 1.0, "bob"), "conflicting", ["smishing", "ham"]),
        (label("smishing", 1.0, "bob"), "labelled", ["smishing", "smishing"]),
        (label("smshing", 2.0), "unknown_label", ["smishing"]),
        (withdraw(2.0), "withdrawn", []),
        (withdraw(0.5), "outdated", ["smishing"]),
        (withdraw(2.0, "bob"), "nothing_to_withdraw", ["smishing"]),
    ],
)
def test_what_becomes_of_a_second_statement(second: Statement, end: End, left: list[str]) -> None:
    first = label("smishing", 1.0, offset=7)
    assert ends(first, second) == ["labelled", end]
    assert labels(first, second) == left


def test_a_withdrawal_also_holds_against_an_older_label_that_comes_later() -> None:
    assert ends(withdraw(2.0), label("ham", 1.0)) == ["nothing_to_withdraw", "outdated"]
    assert labels(withdraw(2.0), label("ham", 1.0)) == []
    assert labels(withdraw(2.0), label("ham", 3.0)) == ["ham"]


def test_a_conflict_ends_when_one_side_gives_in() -> None:
    both = [label("ham", 1.0), label("smishing", 1.0, "bob")]
    assert disputed(opinions_of(fold({}, both, LABELS, ROOM).ledger)) == ["chat/0/1"]
    for peace in (withdraw(2.0, "bob"), label("ham", 2.0, "bob")):
        after = fold({}, [*both, peace], LABELS, ROOM)
        assert disputed(opinions_of(after.ledger)) == []
        assert fold(after.ledger, [label("ham", 3.0, "cat")], LABELS, ROOM).ends == ["labelled"]


def test_a_full_ledger_takes_corrections_and_nothing_new() -> None:
    full = [label("ham", 1.0), label("ham", 1.0, key="chat/0/2")]
    said = [*full, label("ham", 1.0, "bob"), label("smishing", 2.0), withdraw(3.0, "bob")]
    assert ends(*said, most=2) == ["labelled", "labelled", "no_room", "corrected", "no_room"]


def test_the_ledger_given_stays_as_it_is() -> None:
    ledger = fold({}, [label("ham", 1.0)], LABELS, ROOM).ledger
    fold(ledger, [label("smishing", 2.0), label("ham", 1.0, "bob")], LABELS, ROOM)
    assert [one.label for one in opinions_of(ledger)] == ["ham"]


@st.composite
def histories(draw: st.DrawFn) -> list[Statement]:
    """What some annotators say of some texts, in the order of the topic, times all over the place, some sent twice."""
    said = list[Statement]()
    for offset in range(draw(st.integers(0, 12))):
        annotator, key = draw(st.sampled_from("ab")), draw(st.sampled_from(["chat/0/1", "chat/0/2"]))
        at_s = float(draw(st.integers(0, 4)))
        named = draw(st.sampled_from([*LABELS, "unheard", None]))
        if len(said) > 0 and draw(st.booleans()):
            again = said[draw(st.integers(0, len(said) - 1))]
            said.append(replace(again, at=Position(0, offset)))
        elif named is None:
            said.append(withdraw(at_s, annotator, key, offset))
        else:
            said.append(label(named, at_s, annotator, key, offset))
    return said


def of_the_last_word(history: list[Statement]) -> Counter[tuple[str, str, str]]:
    """What counts, found without any fold: of each annotator and text the newest known statement."""
    known = [one for one in history if not isinstance(one.said, Opinion) or one.said.label in LABELS]
    counts = Counter[tuple[str, str, str]]()
    for slot in {one.slot for one in known}:
        *_, last = sorted((one for one in known if one.slot == slot), key=lambda one: (one.said.labelled_at_s, one.at))
        if isinstance(last.said, Opinion):
            counts[(*slot, last.said.label)] += 1
    return counts


@settings(max_examples=60)
@given(histories(), st.randoms(use_true_random=False), st.integers(0, 12))
def test_the_ledger_holds_the_last_words_in_whatever_order_and_how_often_they_come(
    history: list[Statement], random: Random, cut: int
) -> None:
    folded = fold({}, history, LABELS, ROOM)
    assert Counter((one.key, one.annotator, one.label) for one in opinions_of(folded.ledger)) == of_the_last_word(
        history
    )
    assert len(folded.ends) == len(history)
    shuffled = list(history)
    random.shuffle(shuffled)
    assert fold({}, shuffled, LABELS, ROOM).ledger == folded.ledger
    first = fold({}, history[:cut], LABELS, ROOM)
    rest = fold(first.ledger, history[cut:], LABELS, ROOM)
    assert (rest.ledger, first.ends + rest.ends) == (folded.ledger, folded.ends)
    assert fold(folded.ledger, history, LABELS, ROOM).ledger == folded.ledger
