"""The figures, from samples: pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")

START_SHARE = 0.1  # a rate counts from the moment this share of the outputs is there: starting up does not count
# So many more events than are counted are there: at the end of a backlog some partitions are empty before others, and
# a client that has asked these for more waits, up to its fetch wait, before it asks the others again.
SPARE_SHARE = 0.2


class Sample(NamedTuple):
    """At `at_s` (monotonic), so many `outputs` were there and the system had used `cpu_s` of processor time."""

    at_s: float
    outputs: int
    cpu_s: float


class Rate(NamedTuple):
    """Of one run."""

    events_per_s: float
    cpu_us_per_event: float


class Spread(NamedTuple):
    """Of several runs."""

    median: float
    min: float
    max: float


class Tail(NamedTuple):
    """Of the latencies of one run, in milliseconds."""

    p50_ms: float
    p99_ms: float


def rate(samples: Sequence[Sample], expected: int) -> Rate:
    """Events a second, and processor time an event, between START_SHARE of the outputs and all of them.

    Both ends are samples, with the counts they saw, so the polling interval only blurs the ends. Where one interval
    holds the whole window (a run that is too short), it begins a sample earlier, which counts against the system.

    Raises:
        ValueError: the outputs are not all there, or were from the first sample on.
    """
    end = next((place for place, one in enumerate(samples) if one.outputs >= expected), None)
    if not end:
        raise ValueError(f"no way from fewer than {expected} outputs to all of them in {len(samples)} samples")
    start = next(place for place, one in enumerate(samples) if one.outputs >= expected * START_SHARE)
    first, last = samples[min(start, end - 1)], samples[end]
    records, seconds = last.outputs - first.outputs, last.at_s - first.at_s
    return Rate(records / seconds, (last.cpu_s - first.cpu_s) / records * 1e6)


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0..1) of the sorted values do not exceed (nearest rank)."""
    return ordered[max(0, -(-int(share * len(ordered) * 1_000_000) // 1_000_000) - 1)]


def tail(latencies_ms: Sequence[float]) -> Tail:
    """p50 and p99 of at least one latency."""
    ordered = sorted(latencies_ms)
    return Tail(percentile(ordered, 0.5), percentile(ordered, 0.99))


def rotated(systems: Sequence[T], round_number: int) -> list[T]:
    """The order of a round: each system comes first in turn, so that none always has the machine's best moment."""
    first = round_number % len(systems) if systems else 0
    return [*systems[first:], *systems[:first]]


def arrivals_s(rate_per_s: float, seconds: float, seed: int = 0) -> list[float]:
    """When events arrive at random (a Poisson process) at a mean rate, in seconds from 0; the same for every system."""
    source = random.Random(seed)  # noqa: S311  a load, not a secret
    times: list[float] = []
    now_s = source.expovariate(rate_per_s)
    while now_s < seconds:
        times.append(now_s)
        now_s += source.expovariate(rate_per_s)
    return times


def best(medians: Mapping[str, float]) -> str | None:
    """The fastest system by name; None when there is none."""
    return max(medians, key=lambda name: medians[name], default=None)


def ratio(value: float | None, over: float | None) -> float | None:
    """One figure over another; None when either is missing."""
    return round(value / over, 4) if value is not None and over else None
