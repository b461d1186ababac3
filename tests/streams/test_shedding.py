"""Shedding: only what a written policy names, and only what has waited too long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.events import Coordinates, Event, Rejected
from streams.shedding import shed
from tests.streams.records import FakeRecord

NOW_S = 1_760_000_000.0


def event(offset: int) -> Event:
    return Event("chat", Coordinates("chat", 0, offset), f"e{offset}", "2026-03-01T12:00:00.000Z", 0.0, "text", "key")


AGES_S = st.lists(st.one_of(st.none(), st.floats(-10, 200)), min_size=1, max_size=30)


@given(AGES_S, st.floats(1, 100), st.sets(st.integers(0, 29)))
def test_exactly_the_events_that_waited_too_long_are_set_aside(
    ages_s: list[float | None], after_s: float, bad: set[int]
) -> None:
    stamps = [None if age_s is None else int((NOW_S - age_s) * 1000) for age_s in ages_s]
    records = [FakeRecord(b"{}", offset, "chat", timestamp=stamp) for offset, stamp in enumerate(stamps)]
    rejected = Rejected(Coordinates("chat", 0, 0), "intake", "NotUtf8", "bad")
    verdicts: list[Event | Rejected] = [rejected if place in bad else event(place) for place in range(len(records))]
    found = shed(records, verdicts, after_s, NOW_S)
    assert len(found) == len(verdicts)
    for place, (before, after) in enumerate(zip(verdicts, found, strict=True)):
        stamp = stamps[place]
        waited_too_long = stamp is not None and stamp < (NOW_S - after_s) * 1000
        if place in bad or not waited_too_long:
            assert after is before
        else:
            assert isinstance(after, Rejected)
            assert (after.at, after.stage, after.error) == (Coordinates("chat", 0, place), "shed", "WaitedTooLong")


def test_the_reason_names_the_setting() -> None:
    records = [FakeRecord(b"{}", 7, "chat", timestamp=int((NOW_S - 90) * 1000))]
    (found,) = shed(records, [event(7)], 60.0, NOW_S)
    assert isinstance(found, Rejected)
    assert found.message == "chat/0/7: waited 90 s, longer than sources.chat.shed_after_s = 60"
