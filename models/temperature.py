"""Logits divided by a temperature, so that scores mean what they say.

One temperature for all texts (Guo et al. 2017, section 4.2) treats alike what a model half knows and what it knows;
where people label differently, that is a compromise which fits neither. So the temperature may change with the lead,
how far a text's best label is ahead of the next (as in Tomani et al. 2022, "Parameterized Temperature Scaling", ECCV,
with three stretches in place of their network). The logits of a text are all divided by one number: the order of its
labels stays. Along the lead each stretch is divided by its own temperature: a larger lead stays the larger one.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

TEMPERATURES = (0.2, 10.0)  # the range searched: outside it the logits are broken, not uncalibrated
BENT_AT = (0.15, 0.35)  # shares of the held-out windows with a smaller lead: where most of the errors are
LEAST_BENT = 200  # held-out texts: fewer do not show a bend
MAX_BENDS = 16
SWEEPS, SETTLED = 30, 1e-3
GOLDEN = (math.sqrt(5) - 1) / 2

Floats = npt.NDArray[np.floating]


class Bend(BaseModel):
    """From which lead on another temperature holds."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    lead: float = Field(gt=0)
    temperature: float = Field(gt=0)


class Calibration(NamedTuple):
    """What logits are divided by; `bends` by ascending lead."""

    temperature: float
    bends: tuple[Bend, ...] = ()

    def applied(self, logits: Floats) -> Floats:
        """Logits [n, labels] as they go into the softmax."""
        return logits * self.factors(logits)[:, None]

    def factors(self, logits: Floats) -> npt.NDArray[np.float32]:
        """By what the logits [n, labels] of each text are multiplied, [n]."""
        inverses = 1 / np.array([self.temperature, *(bend.temperature for bend in self.bends)])
        if not self.bends:
            return np.full(len(logits), inverses[0], np.float32)
        factors = _stretches(leads_of(logits), [bend.lead for bend in self.bends]) @ inverses
        return factors.astype(np.float32)


UNTEMPERED = Calibration(1.0)


def leads_of(logits: Floats) -> Floats:
    """How far the best label is ahead of the next, [n], from logits [n, labels]."""
    two = np.partition(logits, -2, axis=1)[:, -2:]
    leads: Floats = two[:, 1] - two[:, 0]
    return leads


def _stretches(leads: Floats, knots: Sequence[float]) -> npt.NDArray[np.float64]:
    """Which share of each lead lies in which stretch, [n, knots + 1]; no lead at all lies in the first."""
    starts, ends = np.array([0.0, *knots]), np.array([*knots, np.inf])
    long = np.maximum(leads.astype(np.float64), 1e-9)[:, None]
    shares: npt.NDArray[np.float64] = np.clip(long - starts, 0, ends - starts) / long
    return shares


def fit_calibration(loss: Callable[[Calibration], float], logits: Floats, texts: int) -> Calibration:
    """The calibration that makes held-out texts likeliest.

    Few held-out texts say little: normal priors hold back the inverses of the temperatures (mean 1, deviation 0.5) and
    their steps (deviation 1). Where texts have a window each, the cost is convex in the inverses.

    Args:
        loss: mean negative log-likelihood of the texts with a calibration.
        logits: those that the calibration is for, [windows, labels].
        texts: how many they are.
    """
    leads = leads_of(logits)
    knots = sorted({float(knot) for knot in np.quantile(leads, BENT_AT) if knot > 0}) if texts >= LEAST_BENT else []

    def of(inverses: Sequence[float]) -> Calibration:
        bends = (Bend(lead=knot, temperature=1 / its) for knot, its in zip(knots, inverses[1:], strict=True))
        return Calibration(1 / inverses[0], tuple(bends))

    def cost(inverses: Sequence[float]) -> float:
        held_back = 2 * sum((its - 1) ** 2 for its in inverses) + 0.5 * float((np.diff(inverses) ** 2).sum())
        return loss(of(inverses)) + held_back / texts

    coldest, hottest = TEMPERATURES
    inverses = [1.0] * (len(knots) + 1)
    for _ in range(SWEEPS if knots else 1):
        before = list(inverses)
        for place in range(len(inverses)):

            def with_one(its: float, place: int = place) -> float:
                return cost([*inverses[:place], its, *inverses[place + 1 :]])

            inverses[place] = golden_section(with_one, 1 / hottest, 1 / coldest)
        if max(abs(one - other) for one, other in zip(inverses, before, strict=True)) < SETTLED:
            break
    return of(inverses)


def negative_log_likelihood(logits: Floats, targets: npt.NDArray[np.integer], calibration: Calibration) -> float:
    """Mean -log p(target) of logits [n, labels]."""
    scaled = calibration.applied(logits).astype(np.float64)
    scaled -= scaled.max(axis=1, keepdims=True)
    log_partition = np.log(np.exp(scaled).sum(axis=1))
    return float((log_partition - scaled[np.arange(len(targets)), targets]).mean())


def golden_section(function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-4) -> float:
    """Where a function with one minimum in [low, high] takes it, to within `tolerance`."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > tolerance:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2
