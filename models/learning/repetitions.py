"""Texts that say nearly what another says: of the hold-out, of the training data, of each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from models.datasets import Example, normalised
from models.learning.curation import Curated, SetAside
from models.near_duplicates import closest, near_duplicates

Progress = Callable[[str, int, int], None]
Parted = tuple[list[Curated], list[SetAside]]  # what is kept, and what is set aside


def outside(rows: Sequence[Curated], held_out: Sequence[str], alike: float, progress: Progress | None) -> Parted:
    """Without what is like a text of the hold-out: whoever learned it could not be measured there any more."""
    kept, aside = [], []
    for row, pair in zip(rows, closest([row.text for row in rows], held_out, alike, progress), strict=True):
        if pair is None:
            kept.append(row)
        else:
            aside.append(SetAside(row.key, "leak", f"{pair.similarity:.2f} like text {pair.first + 1} of the hold-out"))
    return kept, aside


def unlike_training(
    rows: Sequence[Curated], train: Sequence[Example], alike: float, progress: Progress | None
) -> Parted:
    """Without what the training data have: nearly so with the same label, or just so with another.

    Nearly the same text with another label is kept: one word may be what the label is about.
    """
    labels_of: dict[str, set[str]] = defaultdict(set)
    for example in train:
        labels_of[normalised(example.text)].add(example.label)
    kept, aside = [], []
    texts = [example.text for example in train]
    for row, pair in zip(rows, closest([row.text for row in rows], texts, alike, progress), strict=True):
        theirs = labels_of.get(normalised(row.text), set())
        if theirs - {row.label}:
            said = f"labelled {row.label!r}, and {', '.join(map(repr, sorted(theirs)))} in the training data"
            aside.append(SetAside(row.key, "contradiction", said))
        elif pair is not None and train[pair.first].label == row.label:
            said = f"{pair.similarity:.2f} like text {pair.first + 1} of the training data"
            aside.append(SetAside(row.key, "known", said))
        else:
            kept.append(row)
    return kept, aside


def unlike_each_other(rows: Sequence[Curated], alike: float, progress: Progress | None) -> Parted:
    """Of texts that are alike and have one label only that with the most annotators, then the surest, the earliest."""
    ordered = sorted(rows, key=lambda row: (-len(row.annotators), -row.weight, row.event_time_s, row.key))
    gone: dict[int, SetAside] = {}
    for pair in near_duplicates([row.text for row in ordered], alike, progress):
        first, second = ordered[pair.first], ordered[pair.second]
        if pair.first not in gone and first.label == second.label:
            said = f"{pair.similarity:.2f} like {first.key}, with the same label"
            gone.setdefault(pair.second, SetAside(second.key, "near-duplicate", said))
    return [row for place, row in enumerate(ordered) if place not in gone], list(gone.values())
