"""Texts of three labels that a fake model tells apart, and the profile of a release that was made with such."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.learning.drift import bins_of_columns, bins_of_values
from models.learning.profiles import Profile, token_counts
from streams.events import Coordinates, Event
from tests.streams.fakes import LABELS, FakeModel


def profile_of_texts(texts: Sequence[str]) -> Profile:
    """What a fake model would be released with: it is always 0.9 sure, and right."""
    windows = [one.windows for one in FakeModel().encode(texts)]
    known = np.zeros(128, bool)
    known[[ord(one) for text in texts for one in text]] = True
    return Profile(
        n=len(texts),
        bins={
            "label": bins_of_columns([LABELS.index(text.split()[0]) for text in texts], len(LABELS)),
            "confidence": bins_of_values([0.9] * len(texts)),
            "length": bins_of_values(token_counts(windows)),
            "unknown": bins_of_values([0.0] * len(texts)),
        },
        expected_accuracy=0.9,
        accuracy=0.9,
        known=known,
    )


def texts_of(count: int, label: str = "") -> list[str]:
    return [f"{label or LABELS[turn % 3]} {'x' * (turn % 20)}" for turn in range(count)]


def events_of(texts: Sequence[str]) -> list[Event]:
    return [
        Event("chat", Coordinates("chat", 0, offset), f"e{offset}", "2026-03-01T12:00:00.000Z", 0.0, text, "key")
        for offset, text in enumerate(texts)
    ]
