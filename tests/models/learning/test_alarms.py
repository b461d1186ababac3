from dataclasses import replace

import pytest

from models.learning.alarms import PATIENCE, Alarm, Standing, Watch
from models.learning.drift import Shift
from models.learning.estimated_accuracy import Labelled, expected_of_scores, realised

CALM = Standing("risk", "risk-1", {"label": Shift(0.05, 0.2)}, expected_of_scores([0.9] * 300), 0.9)
MOVED = replace(CALM, shifts={"label": Shift(0.4, 0.2), "length": Shift(0.1, 0.2)})
ENOUGH = 100


def looked(*standings: Standing) -> list[Alarm]:
    """What was told, one look a minute."""
    watch, told = Watch(), []
    for minute, standing in enumerate(standings):
        watch, alarm = watch.looked(standing, ENOUGH, 60.0 * minute)
        told += [alarm] if alarm else []
    return told


def test_it_opens_after_some_looks_and_is_told_once() -> None:
    (alarm,) = looked(*[CALM] * 5, *[MOVED] * (PATIENCE + 5))
    assert (alarm.task, alarm.release, alarm.state) == ("risk", "risk-1", "open")
    assert alarm.opened_at_s == 60.0 * (5 + PATIENCE - 1)
    assert alarm.moved == {"label": Shift(0.4, 0.2)}


def test_a_single_look_is_no_alarm() -> None:
    assert looked(*[*[MOVED] * (PATIENCE - 1), CALM] * 5) == []


def test_it_is_resolved_as_it_was_opened_and_may_open_again() -> None:
    told = looked(*[MOVED] * PATIENCE, *[CALM] * (PATIENCE - 1), MOVED, *[CALM] * PATIENCE, *[MOVED] * PATIENCE)
    assert [one.state for one in told] == ["open", "resolved", "open"]
    assert told[1].opened_at_s == told[0].opened_at_s != told[2].opened_at_s


def test_it_wants_labels_until_there_are_enough_of_them() -> None:
    told = looked(*[MOVED] * PATIENCE, *[replace(MOVED, new_labels=ENOUGH)] * 3)
    assert [(one.state, one.wants) for one in told] == [("open", "labels"), ("open", "retrain")]


def test_a_new_release_ends_the_alarm_of_the_one_before() -> None:
    after = replace(MOVED, release="risk-2")
    told = looked(*[MOVED] * PATIENCE, *[after] * PATIENCE)
    assert [(one.release, one.state) for one in told] == [("risk-1", "open"), ("risk-1", "resolved")]
    told = looked(*[MOVED] * PATIENCE, *[after] * (PATIENCE + 1))
    assert (told[-1].release, told[-1].state) == ("risk-2", "open")


@pytest.mark.parametrize(("score", "events", "falls"), [(0.8, 300, True), (0.87, 300, False), (0.5, 20, False)])
def test_an_expected_accuracy_that_falls_is_an_alarm(score: float, events: int, falls: bool) -> None:
    standing = replace(CALM, expected=expected_of_scores([score] * events))
    assert ("expected accuracy" in standing.moved) is falls


@pytest.mark.parametrize(("right", "of", "gone"), [(60, 100, True), (88, 100, False), (5, 10, False)])
def test_labels_that_disagree_with_the_scores_are_an_alarm(right: int, of: int, gone: bool) -> None:
    standing = replace(CALM, labelled=realised([Labelled(turn < right, 0.9) for turn in range(of)]))
    assert ("calibration" in standing.moved) is gone
    assert standing.shifts == CALM.shifts
