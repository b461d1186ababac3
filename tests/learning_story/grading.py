"""What the predictions were worth, by the texts' own labels; and how long they took. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from streams.bench.statistics import Tail, tail
from tests.learning_story.traffic import Answer, Event

Pairs = Iterable[tuple[Event, Answer]]


class Point(NamedTuple):
    """A stretch of the story: macro-F1 in points on both worlds, None where too little of it came."""

    what: str
    from_s: float
    to_s: float
    events: int
    new: float | None
    old: float | None
    releases: tuple[str, ...]


def macro_f1(pairs: Pairs) -> float | None:
    """In points, over the labels of these texts; None where there are fewer than two."""
    told = [(event.text.label, answer.label) for event, answer in pairs]
    labels = {label for label, _ in told}
    if len(labels) < 2:
        return None
    f1 = []
    for label in labels:
        right = sum(a == b == label for a, b in told)
        found, there = sum(b == label for _, b in told), sum(a == label for a, _ in told)
        f1.append(2 * right / (found + there))
    return round(100 * sum(f1) / len(f1), 2)


def of_pool(pairs: Pairs, pool: str, release: str | None = None) -> list[tuple[Event, Answer]]:
    """Each text of a pool once, as a release answered it first; without one, as any did, each time."""
    chosen = [(event, answer) for event, answer in pairs if event.pool == pool]
    if release is None:
        return chosen
    once = {event.text.text: (event, answer) for event, answer in reversed(chosen) if answer.release == release}
    return [*once.values()]


def curve(pairs: Pairs, stretches: Sequence[tuple[str, float]], new: str, old: str) -> list[Point]:
    """A point for each stretch, given by its name and when it began, in seconds since 1970; the last is the end."""
    found = []
    every = list(pairs)
    start_s = stretches[0][1]
    for (name, from_s), (_, to_s) in pairwise(stretches):
        its = [one for one in every if from_s <= one[0].due_ms / 1000 < to_s]
        releases = tuple(dict.fromkeys(answer.release for _, answer in its))
        on_new, on_old = (macro_f1(of_pool(its, pool)) for pool in (new, old))
        spans = round(from_s - start_s, 1), round(to_s - start_s, 1)
        found.append(Point(name, *spans, len(its), on_new, on_old, releases))
    return found


def latencies(pairs: Pairs, from_ms: int, to_ms: int) -> Tail:
    """Of the events that were due in this stretch of time."""
    return tail([answer.came_ms - event.due_ms for event, answer in pairs if from_ms <= event.due_ms < to_ms])
