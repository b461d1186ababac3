"""One training says little: the same with several seeds, and how far their results lie apart."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from models.curves import Curves, Together
from models.lessons import Lesson
from models.train_settings import TrainSettings
from models.training import Checkpoint, Progress, train


class _Seed:
    """Curves of one seed among several."""

    def __init__(self, curves: Curves, seed: int) -> None:
        self._curves, self._seed = curves, seed

    def step(self, values: Mapping[str, float], step: int) -> None:
        """Hand the figures on under the seed's name."""
        self._curves.step({f"seed-{self._seed}/{name}": value for name, value in values.items()}, step)


def train_seeds(
    lessons: Sequence[Lesson],
    settings: TrainSettings,
    seeds: int,
    progress: Progress,
    curves: Curves | None = None,
    state_folder: Path | None = None,
) -> Checkpoint:
    """Train with `seeds` (1 or more) seeds from `settings.seed` on, and give the best on the development data.

    Its notes say of every seed the macro-F1 there (the mean of the tasks'), with mean and deviation of all: the best
    one's own figure flatters, as it was picked by it. All seeds hold out the same examples. Raises what `train` raises.
    """
    curves = curves or Together()
    if seeds == 1:
        return train(lessons, settings, progress, curves, state_folder)
    best, f1s = None, {}
    for turn in range(seeds):
        seed = settings.seed + turn

        def one_of_several(what: str, done: int, total: int, turn: int = turn) -> None:
            progress(f"seed {turn + 1}/{seeds}, {what}", turn * total + done, seeds * total)

        its = settings.model_copy(update={"seed": seed})
        found = train(lessons, its, one_of_several, _Seed(curves, seed), state_folder)
        f1s[seed] = fmean(head.dev_macro_f1 for head in found.heads)
        if best is None or f1s[seed] > f1s[best.settings.seed]:
            best = found
    assert best is not None  # noqa: S101 - there is at least one seed
    spread = {"mean": fmean(f1s.values()), "deviation": stdev(f1s.values())}
    return replace(best, notes={"seeds": {"dev_macro_f1": {str(seed): f1 for seed, f1 in f1s.items()}, **spread}})
