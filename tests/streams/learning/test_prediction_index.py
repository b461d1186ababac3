from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.learning.store import ReadUpTo
from streams.events import Coordinates
from streams.learning.prediction_index import Known, PredictionIndex


def known(number: int, event_id: str = "", topic: str = "chat", scored_at_s: float = 0.0, label: str = "ham") -> Known:
    at = Coordinates(topic, 0, number)
    return Known(f"{at}/risk", "risk", event_id or f"e{number}", at, label, 0.75, "risk-1", scored_at_s or number)


def read_up_to(offset: int) -> ReadUpTo:
    return ReadUpTo(topic="predictions", topic_id="", offsets={0: offset})


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., PredictionIndex]:
    return lambda most=100: PredictionIndex(tmp_path / "learning" / "index.sqlite", most)


def test_a_prediction_is_found_by_its_id_and_by_its_events(opened: Callable[..., PredictionIndex]) -> None:
    with opened() as index:
        assert index.read_up_to() is None
        index.remember(map(known, range(3)), read_up_to(3))
    with opened() as index:
        assert index.read_up_to() == read_up_to(3)
        assert index.by_id("chat/0/1/risk") == known(1)
        assert index.by_event("risk", "e2") == [known(2)]
        assert (index.by_id("chat/0/7/risk"), index.by_event("intent", "e2")) == (None, [])
        assert known(1).identity == "chat/0/1"


def test_the_first_prediction_of_an_event_is_the_one_that_counts(opened: Callable[..., PredictionIndex]) -> None:
    with opened() as index:
        index.remember(
            [known(1), known(1, label="smishing"), known(2, "e1"), known(3, "e1", topic="news")], read_up_to(4)
        )
        assert index.by_id("chat/0/1/risk") == known(1)
        assert index.by_event("risk", "e1") == [known(1), known(3, "e1", topic="news")]


def test_only_the_newest_are_kept(opened: Callable[..., PredictionIndex]) -> None:
    with opened(most=10) as index:
        index.remember(map(known, range(25)), read_up_to(25))
        assert len(index) == 10
        assert (index.by_id("chat/0/14/risk"), index.by_id("chat/0/15/risk")) == (None, known(15))


@pytest.mark.parametrize(("before_s", "left"), [(0.0, 5), (13.0, 2), (99.0, 0)])
def test_what_is_too_old_is_forgotten(opened: Callable[..., PredictionIndex], before_s: float, left: int) -> None:
    with opened() as index:
        index.remember((known(number, scored_at_s=10.0 + number) for number in range(5)), read_up_to(5))
        index.forget_before(before_s)
        assert len(index) == left
        index.remember([known(9)], read_up_to(9))
        assert len(index) == left + 1


def test_rows_and_progress_are_written_together_or_not_at_all(opened: Callable[..., PredictionIndex]) -> None:
    def cut_off() -> Iterator[Known]:
        yield known(1)
        raise KeyboardInterrupt

    with opened() as index:
        index.remember([known(0)], read_up_to(1))
        with pytest.raises(KeyboardInterrupt):
            index.remember(cut_off(), read_up_to(2))
        assert (len(index), index.read_up_to()) == (1, read_up_to(1))


def test_a_damaged_file_is_made_anew(opened: Callable[..., PredictionIndex], tmp_path: Path) -> None:
    path = tmp_path / "learning" / "index.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    with opened() as index:
        assert index.read_up_to() is None
        index.remember([known(0)], read_up_to(1))
        assert index.by_id("chat/0/0/risk") == known(0)
