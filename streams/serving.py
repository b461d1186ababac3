"""Which scorers a source's events go to: those of the champions, and for a share of the keys a challenger's. Pure.

A canary takes the events whose key falls into its share: the same keys on every worker, and others for every release.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from streams.events import Event, ReleaseMode
from streams.scoring import Outcome, Scorer

_RANGE = float(1 << 64)


class Challenge(NamedTuple):
    """A challenger of one task at work: beside the champion (shadow), or in its place for a share (canary)."""

    scorer: Scorer
    task: str
    release: str
    mode: ReleaseMode
    share: float


class Part(NamedTuple):
    """A scorer and the places of the events that go to it; None: all."""

    scorer: Scorer
    places: Sequence[int] | None

    def of(self, events: Sequence[Event]) -> Sequence[Event]:
        """Its events among those of a slice."""
        return events if self.places is None else [events[place] for place in self.places]


def in_share(key: str, release: str, share: float) -> bool:
    """Whether events with this key are in a release's share: as good as drawn by lot, once for all."""
    drawn = int.from_bytes(blake2b(f"{release}\0{key}".encode("utf-8", "replace"), digest_size=8).digest(), "big")
    return drawn < share * _RANGE


class Serving:
    """What scores a slice, all of it.

    Args:
        scorers: of the champions; together they serve the tasks.
        challenges: at most one a task.
        tasks: of the source.
    """

    def __init__(self, scorers: Sequence[Scorer], challenges: Sequence[Challenge], tasks: Collection[str]) -> None:
        self.scorers = tuple(scorers)
        self.challenges = tuple(challenges)
        self.canaries = tuple(one for one in challenges if one.mode == "canary")
        self.all = (*self.scorers, *(one.scorer for one in challenges))
        self._tasks = frozenset(tasks)
        its = [(one.name, one.release) for scorer in scorers for one in scorer.loaded.served]
        self.releases: Mapping[str, str] = {task: release for task, release in its if task in self._tasks}

    def parts(self, events: Sequence[Event]) -> list[Part]:
        """Who scores which of these events. A champion of several tasks also scores what a canary of one takes."""
        if not self.canaries:
            return [Part(scorer, None) for scorer in self.scorers]
        taken = {
            one.task: [place for place, event in enumerate(events) if in_share(event.key, one.release, one.share)]
            for one in self.canaries
        }
        return [
            *(Part(scorer, self._left(scorer, taken, len(events))) for scorer in self.scorers),
            *(Part(one.scorer, taken[one.task]) for one in self.canaries),
        ]

    def _left(self, scorer: Scorer, taken: Mapping[str, Collection[int]], events: int) -> list[int] | None:
        its = [one.name for one in scorer.loaded.served if one.name in self._tasks]
        if len(its) > 1 or its[0] not in taken:
            return None
        gone = set(taken[its[0]])
        return [place for place in range(events) if place not in gone]


def by_event(parts: Sequence[Part], outcomes: Sequence[Sequence[Outcome]], events: int) -> list[Sequence[Outcome]]:
    """The outcomes of each event, a canary's behind the champion's."""
    if all(part.places is None for part in parts):
        return list(zip(*outcomes, strict=True))
    rows: list[list[Outcome]] = [[] for _ in range(events)]
    for part, found in zip(parts, outcomes, strict=True):
        for place, outcome in zip(range(events) if part.places is None else part.places, found, strict=True):
            rows[place].append(outcome)
    return list(rows)
