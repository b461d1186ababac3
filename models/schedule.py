"""In which order and how fast a model learns: pure functions of sizes, lengths and seeded shufflers."""

import math
import random
from collections.abc import Iterator, Sequence

from models.train_settings import LongTexts, Shape

SORTED_BATCHES = 16  # batches sorted by length together: little padding, still a random order


def shuffler_of(seed: int, epoch: int, task_number: int) -> random.Random:
    """The random numbers of one task's epoch: its own, so that an epoch can be resumed without those before it."""
    return random.Random(f"{seed}/{epoch}/{task_number}")  # noqa: S311 - a reproducible shuffle, nothing secret


def chosen_windows(spans: Sequence[range], rule: LongTexts, shuffler: random.Random) -> list[int]:
    """Which windows an epoch learns: of each text, whose windows its span says, the first, a random one, or all."""
    if rule == "all":
        return [window for span in spans for window in span]
    return [span.start if rule == "first" else shuffler.choice(span) for span in spans]


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


def paired_batches(targets: Sequence[int], batch_texts: int, shuffler: random.Random) -> list[list[int]]:
    """Batches of two texts of one label each, from as many labels as fit; negative targets (no label) stay out.

    Of a label with an odd number of texts one is taken twice; a label's only text has no partner and stays out.
    """
    rows_of: dict[int, list[int]] = {}
    for row, target in enumerate(targets):
        if target >= 0:
            rows_of.setdefault(target, []).append(row)
    pairs: list[tuple[float, list[int]]] = []
    for rows in rows_of.values():
        if len(rows) < 2:
            continue
        shuffler.shuffle(rows)
        if len(rows) % 2:
            rows.append(rows[0])
        count = len(rows) // 2
        # A label's pairs lie evenly over the epoch, so that a batch holds as many labels as it can.
        pairs += [((turn + shuffler.random()) / count, rows[2 * turn : 2 * turn + 2]) for turn in range(count)]
    ordered = [row for _, pair in sorted(pairs) for row in pair]
    size = max(2, batch_texts - batch_texts % 2)
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    shuffler.shuffle(batches)
    return batches


def alternated(batches: Sequence[Sequence[list[int]]]) -> list[tuple[int, list[int]]]:
    """The batches of several tasks as one sequence of (task number, rows), each task's spread evenly over all of it."""
    places = [
        ((turn + 0.5) / len(its), number, rows) for number, its in enumerate(batches) for turn, rows in enumerate(its)
    ]
    return [(number, rows) for _, number, rows in sorted(places)]


def grouped(batches: Sequence[tuple[int, list[int]]], count: int) -> Iterator[Sequence[tuple[int, list[int]]]]:
    """The batches in groups of `count`, the last one what is left: each is one step of the optimiser."""
    for start in range(0, len(batches), count):
        yield batches[start : start + count]


def learning_rate_factor(step: int, steps: int, warmup: float, shape: Shape) -> float:
    """Of the learning rate, at `step` of `steps` from 0 on: up linearly over the `warmup` share, then by the shape.

    linear and cosine fall to 0 at the end, constant stays.
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    if shape == "constant":
        return 1.0
    left = max(0.0, (steps - step) / max(1, steps - rise))
    return left if shape == "linear" else 0.5 * (1 - math.cos(math.pi * left))
