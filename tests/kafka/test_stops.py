"""Workers told to stop at awkward moments, once each; `python -m tests.shutdown` does it with more seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.broker import KafkaBroker
from tests.crash.stops import STOPS
from tests.shutdown import stops

pytestmark = pytest.mark.kafka


def test_every_stop_ends_in_time_and_loses_nothing(kafka: KafkaBroker, tmp_path: Path) -> None:
    reports = stops(kafka.bootstrap, tmp_path, list(STOPS), [0], at_once=4)
    for one in reports:
        print(f"\n{one.case}: {', '.join(one.kinds)}, {one.verdict.duplicates} duplicates", end="")
    assert [(one.case, one.problems) for one in reports if one.problems] == []
