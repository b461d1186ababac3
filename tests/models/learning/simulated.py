"""Labelled texts as chance would bring them, for the error rates of what decides on two releases."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.learning.paired import macro_f1_gain, macro_f1_over
from models.learning.sequential import FRACTIONS


class World(NamedTuple):
    """Texts by (true, champion's, candidate's) column, and how likely each kind is."""

    rows: npt.NDArray[np.int64]
    chances: npt.NDArray[np.float64]

    @property
    def gain(self) -> float:
        after, before = (macro_f1_over(self.rows[:, 0], self.rows[:, side], self.chances[None])[0] for side in (2, 1))
        return float(after - before)

    def passes(self, rng: np.random.Generator, texts: int, margin: float) -> bool:
        targets, before, after = np.repeat(self.rows, rng.multinomial(texts, self.chances), axis=0).T
        return macro_f1_gain(targets, before, after, samples=400, seed=int(rng.integers(1 << 30))).low > -margin


def world(shares: tuple[float, ...], both_wrong: float, gained: float, lost: float) -> World:
    """Each label's texts are wrong, gained and lost at the same rates, mistaken for any other label."""
    rows, chances = [], []
    for true, share in enumerate(shares):
        rows.append((true, true, true))
        chances.append(share * (1 - both_wrong - gained - lost))
        for other in {*range(len(shares))} - {true}:
            rows += [(true, other, other), (true, other, true), (true, true, other)]
            chances += [share * rate / (len(shares) - 1) for rate in (both_wrong, gained, lost)]
    return World(np.array(rows), np.array(chances) / sum(chances))


def world_at_the_margin(shares: tuple[float, ...], both_wrong: float, gained: float, margin: float) -> World:
    """The candidate's macro-F1 is lower by just the margin."""
    low, high = 0.0, 0.5
    for _ in range(40):
        middle = (low + high) / 2
        if world(shares, both_wrong, gained, middle).gain > -margin:
            low = middle
        else:
            high = middle
    return world(shares, both_wrong, gained, high)


SPAM, TONE, RARE, MANY = (0.87, 0.13), (0.6, 0.3, 0.1), (0.85, 0.1, 0.05), (0.125,) * 8


def e_table(most: int) -> npt.NDArray[np.float64]:
    """log_e(gained, lost, 0) for all counts up to `most`: ties change nothing where the mean is 0."""
    gained, lost = np.arange(most)[:, None], np.arange(most)[None]
    wealth = np.full((most, most), -np.inf)
    for fraction in FRACTIONS:
        wealth = np.logaddexp(wealth, gained * np.log1p(fraction) + lost * np.log1p(-fraction))
    table: npt.NDArray[np.float64] = wealth - math.log(len(FRACTIONS))
    return table


def counts_of(rng: np.random.Generator, gained: float, lost: float, n: int) -> tuple[npt.NDArray[np.int64], ...]:
    draws = rng.random(n)
    plus, minus = draws < gained, (draws >= gained) & (draws < gained + lost)
    return np.cumsum(plus), np.cumsum(minus)


def streams(seed: int, runs: int, gained: float, lost: float, n: int) -> Iterator[tuple[npt.NDArray[np.int64], ...]]:
    rng = np.random.default_rng(seed)
    return (counts_of(rng, gained, lost, n) for _ in range(runs))
