"""In which order and how fast a model learns: pure functions of sizes, lengths and a seeded shuffler."""

import random
from collections.abc import Sequence

SORTED_BATCHES = 16  # batches sorted by length together: little padding, still a random order


def shuffled_batches(lengths: Sequence[int], batch_texts: int, shuffler: random.Random) -> list[list[int]]:
    """Every row once: shuffled, then sorted by length within stretches, cut, and the cuts shuffled."""
    rows = list(range(len(lengths)))
    shuffler.shuffle(rows)
    stretch = SORTED_BATCHES * batch_texts
    batches = []
    for start in range(0, len(rows), stretch):
        alike = sorted(rows[start : start + stretch], key=lengths.__getitem__)
        batches += [alike[cut : cut + batch_texts] for cut in range(0, len(alike), batch_texts)]
    shuffler.shuffle(batches)
    return batches


def alternated(batches: Sequence[Sequence[list[int]]]) -> list[tuple[int, list[int]]]:
    """The batches of several tasks as one sequence of (task number, rows), each task's spread evenly over all of it."""
    places = [
        ((turn + 0.5) / len(its), number, rows) for number, its in enumerate(batches) for turn, rows in enumerate(its)
    ]
    return [(number, rows) for _, number, rows in sorted(places)]


def warm_up_then_decay(step: int, steps: int, warmup: float) -> float:
    """Of the learning rate: up from 0 over the first `warmup` share of the steps, then down to 0, both linearly."""
    rise = max(1, round(warmup * steps))
    return (step + 1) / rise if step < rise else max(0.0, (steps - step) / max(1, steps - rise))
