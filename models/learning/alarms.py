"""When drift becomes an alarm, when it is over, and what it asks for: pure, looked at again and again.

An alarm opens when something has moved at PATIENCE looks one after the other, and is resolved after as many without. It
wants to be answered by training, when people have labelled enough since, and by labels otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from models.learning.drift import Shift
from models.learning.estimated_accuracy import Expected, Realised

PATIENCE = 3  # looks
LEAST_EVENTS = 200  # of which the expected accuracy is taken seriously
LEAST_LABELS = 30  # by which calibration is judged
ACCURACY_MATTERS = 0.05  # what the expected accuracy may fall by

Wants = Literal["labels", "retrain"]
State = Literal["open", "resolved"]


@dataclass(frozen=True)
class Standing:
    """How a release stands at a task now.

    `shifts` are by quantity, `expected_at_release` the mean score of its development texts, `labelled` what the labels
    of its predictions say, `new_labels` how many texts were labelled since it was made.
    """

    task: str
    release: str
    shifts: Mapping[str, Shift]
    expected: Expected
    expected_at_release: float
    labelled: Realised | None = None
    new_labels: int = 0

    @property
    def moved(self) -> dict[str, Shift]:
        """What has moved further than it may; an accuracy moves by what is missing."""
        found = {name: shift for name, shift in self.shifts.items() if shift.drifted}
        accuracy = self.expected.accuracy
        if accuracy is not None and self.expected.n >= LEAST_EVENTS:
            fall = Shift(self.expected_at_release - accuracy.value, ACCURACY_MATTERS)
            if fall.drifted:
                found["expected accuracy"] = fall
        its = self.labelled
        if its is not None and its.n >= LEAST_LABELS and its.misled:
            found["calibration"] = Shift(its.expected - its.accuracy.value, its.accuracy.high - its.accuracy.value)
        return found


@dataclass(frozen=True)
class Alarm:
    """An alarm as it stands."""

    task: str
    release: str
    state: State
    opened_at_s: float
    wants: Wants
    moved: Mapping[str, Shift]


@dataclass(frozen=True)
class Watch:
    """What is remembered from look to look about a task: its open alarm, and how long something else has been seen."""

    alarm: Alarm | None = None
    looks: int = 0  # one after the other that speak for another state

    def looked(self, standing: Standing, labels_to_retrain: int, now_s: float) -> tuple["Watch", Alarm | None]:
        """What is remembered from now on, and the alarm to tell everybody: opened, wanting something else, or resolved.

        A new release ends the alarm of the one before.
        """
        moved, wants = standing.moved, _wants(standing, labels_to_retrain)
        before = self.alarm
        if before is not None and before.release != standing.release:
            return Watch(), replace(before, state="resolved")
        if (before is None) == (not moved):  # as it was
            if before is not None and wants != before.wants:
                wanting = replace(before, wants=wants, moved=moved)
                return Watch(wanting), wanting
            return Watch(before), None
        if self.looks + 1 < PATIENCE:
            return Watch(before, self.looks + 1), None
        if before is not None:
            return Watch(), replace(before, state="resolved", moved={})
        opened = Alarm(standing.task, standing.release, "open", now_s, wants, moved)
        return Watch(opened), opened


def _wants(standing: Standing, labels_to_retrain: int) -> Wants:
    return "retrain" if standing.new_labels >= labels_to_retrain else "labels"
