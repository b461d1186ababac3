from collections.abc import Mapping
from pathlib import Path

import pytest

from models.curves import Curves, TensorBoardCurves, Together


class Kept:
    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []

    def step(self, values: Mapping[str, float], step: int) -> None:
        self.steps.append((step, dict(values)))


def test_each_of_several_gets_every_step_in_order() -> None:
    one, other = Kept(), Kept()
    together: Curves = Together(one, other)
    together.step({"train/loss": 0.7}, 1)
    together.step({"train/loss": 0.5, "dev/macro_f1": 0.8}, 2)
    assert one.steps == other.steps == [(1, {"train/loss": 0.7}), (2, {"train/loss": 0.5, "dev/macro_f1": 0.8})]


def test_no_curves_take_figures_too() -> None:
    Together().step({"train/loss": 0.7}, 1)


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoardCurves(tmp_path / "curves") as curves:
        curves.step({"train/loss": 0.7}, 10)
        curves.step({"train/loss": 0.5, "dev/macro_f1/tone": 0.8}, 20)
    found = EventAccumulator(str(tmp_path / "curves"))
    found.Reload()
    assert sorted(found.Tags()["scalars"]) == ["dev/macro_f1/tone", "train/loss"]
    losses = [(event.step, event.value) for event in found.Scalars("train/loss")]
    assert losses == [(10, pytest.approx(0.7)), (20, pytest.approx(0.5))]
