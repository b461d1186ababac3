"""Training curves: the figures of a run, step by step, to whoever draws or keeps them."""

from collections.abc import Mapping
from typing import Protocol


class Curves(Protocol):
    """What a training loop hands its figures to; opened and closed by whoever starts the run."""

    def step(self, values: Mapping[str, float], step: int) -> None:
        """Take figures by name, such as `train/loss` or `dev/macro_f1`, after `step` optimiser steps (0 or more)."""
        ...


class Together:
    """Several curves that get the same figures, in their order; none at all is fine."""

    def __init__(self, *curves: Curves) -> None:
        self.curves = curves

    def step(self, values: Mapping[str, float], step: int) -> None:
        """Hand the figures on to each."""
        for one in self.curves:
            one.step(values, step)
