from collections.abc import Mapping

from models.curves import Curves, Together


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
