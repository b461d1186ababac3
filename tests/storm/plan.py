"""The storm's plan: which fault comes after which event, and which events are poison. Pure: a seed gives one plan.

Faults are dealt from a deck of each group, so that every kind comes as often as the deck says and in an order of its
own; the moment, the victim and the length are drawn too. A fault belongs to an event number and not to a time: what
flows while it lasts is the same in every replay.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tests.storm.events import POISON

Group = Literal["process", "broker", "network", "rebalance", "machine"]
GROUPS: tuple[Group, ...] = get_args(Group)

DECKS: Mapping[Group, tuple[str, ...]] = {
    # kill, stop in order, pause past the session time-out (a zombie), a model that fails, a task that fails
    "process": ("kill",) * 4 + ("term",) * 2 + ("pause",) * 2 + ("model-fails", "task-fails"),
    # gone and back at once, stopped in order and back, away for a while, paused, all of them away
    "broker": ("broker-kill",) * 3 + ("broker-restart",) * 2 + ("broker-down",) * 3 + ("broker-pause", "all-down"),
    # nothing passes, half the workers cut off for two sessions, connections reset, peers gone silently, slow lines
    "network": ("blackhole",) * 2 + ("cut-off",) * 3 + ("reset",) * 2 + ("half-open", "slices", "delay"),
    # another number of workers; each restarted in turn
    "rebalance": ("scale",) * 8 + ("rolling-restart",) * 2,
    # the wall clock of a worker jumps; nothing it writes to files fits the disk
    "machine": ("clock-forward", "clock-back", "disk-full", "disk-full"),
}
ALL: tuple[str, ...] = DECKS["process"] + tuple(kind for group in GROUPS for kind in DECKS[group])
KINDS = frozenset(ALL)

SECONDS: Mapping[str, tuple[float, float]] = {  # how long; what is not named is over at once
    "broker-down": (4, 12),
    "broker-pause": (2, 9),
    "all-down": (4, 12),
    "blackhole": (4, 20),
    "half-open": (4, 20),
    "slices": (4, 10),
    "delay": (4, 10),
    "disk-full": (3, 6),
}
MOST_WORKERS = 6


@dataclass(frozen=True)
class Fault:
    """Comes `after_s` seconds after event `at_event` was sent, hits victim number `target` (modulo how many there are)
    and lasts `seconds`. Of the kind `scale`, `target` is the new number of workers."""

    at_event: int
    kind: str
    target: int
    seconds: float
    after_s: float


@dataclass(frozen=True)
class Plan:
    """What a storm does; `poison` has the kind of each poison event by its number."""

    seed: int
    events: int
    faults: tuple[Fault, ...]
    poison: Mapping[int, str]

    @property
    def kinds(self) -> frozenset[str]:
        """Of the faults."""
        return frozenset(fault.kind for fault in self.faults)


def make_plan(seed: int, events: int, faults: int, poison: int, only: Group | Literal["all"], session_s: float) -> Plan:
    """The plan of a seed.

    Args:
        seed: any number.
        events: how many.
        faults: how many; fewer than events.
        poison: how many of the events are poison.
        only: a group of faults, or all of them.
        session_s: the session time-out of the group; pauses are longer, a cut lasts twice as long.

    Raises:
        ValueError: more faults or more poison than events.
    """
    if faults >= events or poison > events:
        raise ValueError(f"{events} events are too few for {faults} faults and {poison} poison events")
    rng = random.Random(seed)
    kinds = _dealt(rng, ALL if only == "all" else DECKS[only], faults)
    marks = [(number + 1) * events // (faults + 1) for number in range(faults)]
    chosen = rng.sample(range(events), poison)
    planted = {number: list(POISON)[place % len(POISON)] for place, number in enumerate(sorted(chosen))}
    return Plan(seed, events, tuple(_faults(rng, kinds, marks, session_s)), planted)


def _dealt(rng: random.Random, deck: tuple[str, ...], count: int) -> list[str]:
    kinds: list[str] = []
    while len(kinds) < count:
        kinds += rng.sample(deck, len(deck))
    return kinds[:count]


def _faults(rng: random.Random, kinds: list[str], marks: list[int], session_s: float) -> list[Fault]:
    found, workers = [], 0
    for kind, mark in zip(kinds, marks, strict=True):
        target = rng.randrange(1000)
        if kind == "scale":
            target = workers = rng.choice([count for count in range(1, MOST_WORKERS + 1) if count != workers])
        seconds = round(rng.uniform(*SECONDS.get(kind, (0, 0))), 2)
        if kind == "pause":
            seconds = session_s * 1.5
        elif kind == "cut-off":
            seconds = session_s * 2
        found.append(Fault(mark, kind, target, seconds, round(rng.uniform(0, 1.5), 2)))
    return found
