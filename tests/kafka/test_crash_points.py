"""A worker struck at every step of an event, once each; `python -m tests.crash_points` does it with more seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.broker import KafkaBroker
from tests.crash.points import ALL_POINTS
from tests.crash_points import AT_ONCE, figures, strike
from tests.mutants import play

pytestmark = pytest.mark.kafka


def test_nothing_is_lost_wherever_the_worker_is_struck(kafka: KafkaBroker, tmp_path: Path) -> None:
    """All points side by side: most of a run is waiting for the group to notice the death."""
    reports = strike(kafka.bootstrap, tmp_path, list(ALL_POINTS), [0], AT_ONCE)
    found = figures(reports)
    print(f"\n{found}")
    assert [(one.case, one.problems) for one in reports if one.problems] == []
    assert found["runs"] == len(ALL_POINTS)
    assert found["surges"] >= found["runs"], "too little happens for the surges to prove anything"


def test_the_runs_see_what_a_worker_without_a_rule_loses(kafka: KafkaBroker, tmp_path: Path) -> None:
    """One mutant; `python -m tests.mutants` plays all."""
    ((_, report),) = play(kafka.bootstrap, tmp_path, ["finished-too-early"], ["some-acknowledged"], seed=0, at_once=1)
    assert report.verdict.lost > 0, report
