from __future__ import annotations

from tests.storm.patience import LONGEST_STEP_S, Patience


def test_time_that_was_slept_through_does_not_count() -> None:
    now_s = 100.0
    patience = Patience(10, lambda: now_s)
    now_s += 4
    assert not patience.over
    now_s += 3600
    assert not patience.over
    now_s += 10 - 4 - LONGEST_STEP_S
    assert patience.over
