"""A batch on a model: scored; and when it fails, what is to blame. Runs on a model thread.

the batch fails   and a harmless text too: the model is ill, no text is to blame
                  and a harmless text passes: halves, down to the text that fails alone, again and again: poison
out of memory     halves, all of which are scored; when one text alone does not fit, the model is ill
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.out_of_scope import DIGITS
from models.runtimes import out_of_memory
from streams.live import TextModel

HARMLESS = "a plain sentence"
_TRIALS, _TRIALS_WHEN_FLAKY = 3, 8  # each is a harmless text that must pass, and the suspect that must fail again
_FLAKY_FOR_S = 60.0

# The column of the best label, and the probability of each, rounded to 6 digits; behind them, where the release has a
# scope, how familiar the text is.
Scores = tuple[int, list[float]]
Row = tuple[Scores, ...]  # of one window, by each task


class Ill(Exception):
    """The model fails, and no text is to blame."""


class Poison(NamedTuple):
    """The one text that the model fails on, as often as it was tried alone."""

    error: str
    attempts: int


class Ran(NamedTuple):
    """What came of a batch.

    Attributes:
        rows: one for each window.
        seconds: model time.
        failed: how many runs failed on the way.
        too_many_tokens: padded tokens of the smallest part that did not fit into memory.
    """

    rows: list[Row | Poison]
    seconds: float
    failed: int = 0
    too_many_tokens: int | None = None


class Runner:
    """Runs batches on one model, on several threads at once.

    Args:
        model: what runs.
        tasks: whose scores are asked for, in this order.
        clock: monotonic seconds.
    """

    def __init__(self, model: TextModel, tasks: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.model = model
        self._tasks = tuple(tasks)
        self._labels = tuple(len(model.heads[name].labels) for name in self._tasks)
        self._clock = clock
        self._flaky_until_s = -math.inf

    def run(self, windows: Sequence[Sequence[int]]) -> Ran:
        """Scores of a batch.

        Raises:
            Ill: it is the model.
        """
        started_s = self._clock()
        failed, too_many_tokens = 0, None
        try:
            rows: list[Row | Poison] = [*self.scored(windows)]
        except Exception as error:
            trial = _Trial(self, error, windows)
            rows, failed, too_many_tokens = trial.rows, trial.failed, trial.too_many_tokens
        return Ran(rows, self._clock() - started_s, failed, too_many_tokens)

    def scored(self, windows: Sequence[Sequence[int]]) -> list[Row]:
        """Scores of a batch, or whatever the model raises."""
        by_task = self.model.run(windows)
        found = [by_task[name] for name in self._tasks]
        if not all(np.isfinite(one).all() for one in found):
            raise FloatingPointError("the model's scores are not finite")
        return list(zip(*map(_rounded, found, self._labels), strict=True))

    def check(self) -> None:
        """Score a harmless text.

        Raises:
            Ill: not even that.
        """
        try:
            self.scored(self.model.encode([HARMLESS])[0].windows)
        except Exception as error:
            self.flaky()
            raise Ill(f"fails on a harmless text too: {told(error)}") from error

    def flaky(self) -> None:
        """The model failed where no text is to blame: for a while it takes more to blame one."""
        self._flaky_until_s = self._clock() + _FLAKY_FOR_S

    @property
    def trials(self) -> int:
        """How often a text that fails alone is tried again before it is to blame."""
        return _TRIALS_WHEN_FLAKY if self._clock() < self._flaky_until_s else _TRIALS


class _Trial:
    """A batch that has just failed: halved until it is known what is to blame, and scored otherwise.

    At most 2n - 1 runs for n windows, log2 n deep, and for each window that fails alone its trials.
    """

    def __init__(self, runner: Runner, error: Exception, windows: Sequence[Sequence[int]]) -> None:
        self._runner = runner
        self.failed = 0
        self.too_many_tokens: int | None = None
        if len(windows) > 1 and not out_of_memory(error):
            runner.check()  # at once: then an ill model costs two runs, not one for every halving
        self.rows = self._after(error, windows)

    def _after(self, error: Exception, windows: Sequence[Sequence[int]]) -> list[Row | Poison]:
        self.failed += 1
        if len(windows) == 1:
            return [self._alone(error, windows)]
        short_of_memory = out_of_memory(error)
        if short_of_memory:
            tokens = self._runner.model.padded_tokens(list(map(len, windows)))
            self.too_many_tokens = min(tokens, self.too_many_tokens or tokens)
        failed_before, middle = self.failed, len(windows) // 2
        rows = self._part(windows[:middle]) + self._part(windows[middle:])
        if self.failed == failed_before and not short_of_memory:
            self._runner.flaky()
        return rows

    def _part(self, windows: Sequence[Sequence[int]]) -> list[Row | Poison]:
        try:
            return [*self._runner.scored(windows)]
        except Exception as error:
            return self._after(error, windows)

    def _alone(self, error: Exception, windows: Sequence[Sequence[int]]) -> Row | Poison:
        trials = self._runner.trials
        for _ in range(trials):
            if out_of_memory(error):
                break
            self._runner.check()
            try:
                row = self._runner.scored(windows)[0]
            except Exception as again:
                error = again
            else:
                self._runner.flaky()
                return row
        if out_of_memory(error):
            raise Ill(f"out of memory on one text of {len(windows[0])} tokens: {told(error)}") from error
        return Poison(told(error), 1 + trials)


def _rounded(rows: NDArray[np.float32], labels: int) -> list[Scores]:
    """Rounded first: the best label and every threshold are then judged by what is published."""
    found = np.round(rows.astype(np.float64), DIGITS)
    return list(zip(found[:, :labels].argmax(axis=1).tolist(), found.tolist(), strict=True))


def rounded(row: NDArray[np.float32], labels: int) -> Scores:
    """One row of a model's scores for so many labels."""
    return _rounded(row[None], labels)[0]


def told(error: BaseException) -> str:
    """An error in one line of bounded length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
