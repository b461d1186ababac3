"""Curated texts parted by time: what is learned from lies before what a candidate is measured on, and nothing in both.

A random split would measure how well a model knows what it learned last week. What people say of one event comes in
near-copies and conversations, so texts of the later part that are like one of the earlier part, or belong to a
conversation that had begun there, are left out of both: the earlier ones are learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from models.learning.curation import Curated
from models.near_duplicates import ALIKE, closest

RECENT_SHARE = 0.3


class TimeSplit(NamedTuple):
    """Both parts by event time, and the later texts that would have leaked into the earlier part."""

    train: tuple[Curated, ...]  # before cut_s
    recent: tuple[Curated, ...]  # at or after it
    leaks: tuple[Curated, ...]  # at or after it too, but like an earlier text or of a conversation that had begun
    cut_s: float | None  # seconds since 1970; None where all texts are of one moment: then none is recent


def split_by_time(
    rows: Sequence[Curated],
    recent_share: float = RECENT_SHARE,
    alike: float = ALIKE,
    progress: Callable[[str, int, int], None] | None = None,
) -> TimeSplit:
    """Part the rows so that `recent_share` of them (0..1, exclusive) are recent, before leaks are taken out.

    Texts of one moment stay together, on the recent side. Raises ValueError for a share out of its range, MissingExtra
    without datasketch.
    """
    if not 0 < recent_share < 1:
        raise ValueError(f"recent_share must lie between 0 and 1, found {recent_share}")
    ordered = sorted(rows, key=lambda row: (row.event_time_s, row.key))
    cut_s = _cut([row.event_time_s for row in ordered], recent_share)
    if cut_s is None:
        return TimeSplit(tuple(ordered), (), (), None)
    train = [row for row in ordered if row.event_time_s < cut_s]
    later = ordered[len(train) :]
    begun = {row.conversation for row in train} - {None}
    like = closest([row.text for row in later], [row.text for row in train], alike, progress)
    leaks = [row.conversation in begun or pair is not None for row, pair in zip(later, like, strict=True)]
    return TimeSplit(
        tuple(train),
        tuple(row for row, leak in zip(later, leaks, strict=True) if not leak),
        tuple(row for row, leak in zip(later, leaks, strict=True) if leak),
        cut_s,
    )


def _cut(times_s: Sequence[float], recent_share: float) -> float | None:
    """The first moment of the recent part: that of the row where it should begin, or the first after the earliest."""
    if not times_s or times_s[0] == times_s[-1]:
        return None
    wanted = times_s[min(len(times_s) - 1, len(times_s) - round(len(times_s) * recent_share))]
    return wanted if wanted > times_s[0] else next(time_s for time_s in times_s if time_s > times_s[0])
