"""The watch over releases: what labels, dead letters and workers' pages lead to; nothing goes back and forth."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from streams.embedded import EmbeddedBroker
from streams.events import iso
from streams.intake import seconds_of
from streams.learning import promoting
from streams.learning.failure_counts import Failures
from streams.learning.guard import BY, PATIENCE, Guard, fails_more
from streams.learning.releases_topic import read_standing, write
from streams.settings import Settings
from tests.streams.learning.promoted import release
from tests.streams.learning.test_failure_counts import Outputs
from tests.streams.learning.test_judge import DUEL, Court, pair


class Watch:
    """A guard over `rival`, which follows `old`, at a time that the test sets."""

    def __init__(self, settings: Settings) -> None:
        rollout = settings.rollout.model_copy(update={"duel": DUEL, "watch_s": 3600.0})
        self.settings = settings.model_copy(update={"rollout": rollout})
        self.court, self.outputs = Court(self.settings), Outputs(self.settings)
        self.pages: dict[str, str] = {}
        self.guard = Guard(self.settings, lambda: self.now_s, lambda _: self.pages)
        self.now_s = 0.0

    def promoted(self) -> None:
        """The challenger is promoted, now."""
        record = promoting.promote(self.settings, "risk")
        self.now_s = seconds_of(record["promoted_at"], "promoted_at")

    def look(self, times: int = 1) -> list[tuple[str, str]]:
        return [(act.what, act.release) for _ in range(times) for act in self.guard.look()]

    def why(self) -> str:
        record = read_standing(self.settings)["risk", "champion"]
        assert record["promoted_by"] == BY
        return record["why"]


@pytest.fixture
def watch(
    embedded: EmbeddedBroker, settings_at: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Watch:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    return Watch(settings_at(embedded.bootstrap))


def test_a_better_challenger_is_promoted_and_then_watched_over(watch: Watch) -> None:
    assert watch.look() == []
    watch.court.scored(*(pair(n, "spam", "ham") for n in range(40)))
    watch.court.labelled(40)
    assert watch.look() == [("promoted", "rival")]
    assert watch.court.roles() == {"champion": "rival", "challenger": "old"}
    assert watch.why().startswith("sequential test, better")
    assert "watched_until" in read_standing(watch.settings)["risk", "champion"]
    assert watch.look() == []


def test_labels_that_speak_for_the_champion_before_take_the_promotion_back(watch: Watch) -> None:
    watch.promoted()
    assert watch.look() == []
    back = [pair(n, "spam", "ham", "old") for n in range(40)]
    watch.court.scored(*(one | {"champion": {"release": "rival", "label": "spam", "score": 0.9}} for one in back))
    watch.court.labelled(40)
    assert watch.look() == [("rolled back", "rival")]
    assert watch.court.roles() == {"champion": "old"}
    assert watch.why().startswith("old again: sequential test, better")
    assert watch.look(3) == []


def test_dead_letters_of_the_promoted_release_take_it_back(watch: Watch) -> None:
    watch.promoted()
    at_s = watch.now_s
    watch.outputs.scored("old", 1000, at_s - 600)
    watch.outputs.dead("old", 2, at_s - 600)
    watch.outputs.scored("rival", 495, at_s + 60)
    watch.now_s += 60
    watch.outputs.dead("rival", 4, at_s + 60)
    assert watch.look() == [], "that few can be chance"
    watch.outputs.dead("rival", 2, at_s + 60)
    assert watch.look() == [("rolled back", "rival")]
    assert watch.court.roles() == {"champion": "old"}
    assert watch.why() == "rival is taken back: 6 of 501 events became dead letters, before 0.20%"
    watch.outputs.dead("old", 50, at_s + 60)
    watch.outputs.scored("old", 50, at_s + 60)
    assert watch.look() == [], "what was taken back is not put back by itself"


def test_a_release_that_workers_refuse_is_taken_back_once_it_is_sure(watch: Watch) -> None:
    watch.promoted()
    watch.pages = {"risk": "10.0.0.5:9464 refuses it", "tone": "10.0.0.5:9464 refuses it"}
    assert watch.look(PATIENCE - 1) == []
    watch.pages = {}
    assert watch.look() == []
    watch.pages = {"risk": "10.0.0.5:9464 refuses it"}
    assert watch.look(PATIENCE - 1) == []
    assert watch.look() == [("rolled back", "rival")]
    assert watch.why() == "rival is taken back: 10.0.0.5:9464 refuses it"


def test_after_its_time_a_promotion_stands_and_the_champion_before_is_let_go(watch: Watch) -> None:
    watch.promoted()
    watch.pages = {"risk": "10.0.0.5:9464 refuses it"}
    watch.now_s += 3600
    assert watch.look(PATIENCE + 1) == [("withdrawn", "old")]
    assert watch.court.roles() == {"champion": "rival"}


def test_a_promotion_is_watched_over_from_its_own_time_on(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes to look up what served before."""
    readings = count(1_800_000_000.25, 7.0)
    monkeypatch.setattr(promoting, "time", SimpleNamespace(time=lambda: next(readings)))
    record = promoting.promote(watch.settings, "risk")
    assert seconds_of(record["watched_until"], "until") - seconds_of(record["promoted_at"], "at") == 3600


def test_what_nobody_watches_over_is_left_alone(watch: Watch) -> None:
    """Records of another writer, and one whose time is none."""
    for until in ("", "soon", iso(0)):
        record = release("rival") | {"previous": release("old"), "watched_until": until}
        write(watch.settings, {("risk", "champion"): record, ("risk", "challenger"): None})
        watch.pages = {"risk": "refuses it"}
        assert watch.look(PATIENCE + 1) == []


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (Failures(4, 10), Failures(0, 1000), False),  # too few to tell
        (Failures(5, 1000), Failures(0, 1000), False),  # within what one may
        (Failures(20, 1000), Failures(0, 1000), True),
        (Failures(20, 1000), Failures(10, 1000), False),  # those texts break any release
        (Failures(40, 1000), Failures(10, 1000), True),
        (Failures(20, 1000), Failures(0, 0), True),
    ],
)
def test_rising_dead_letters(now: Failures, before: Failures, expected: bool, watch: Watch) -> None:
    assert fails_more(now, before, watch.settings.rollout) is expected
