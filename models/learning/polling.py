"""Opinions as votes: texts, annotators and labels get numbers, and opinions on one text come together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.datasets import normalised
from models.learning.annotators import Votes
from models.learning.curation import SetAside
from models.learning.opinions import Opinion


class Polled(NamedTuple):
    """One text, however many events brought it."""

    first: Opinion  # one on the earliest of these events
    keys: tuple[str, ...]  # of all of them, the earliest first


@dataclass(frozen=True)
class Poll:
    """What people say of which text. Vote `v` is `opinions[v]`: of one annotator on one text the latest; by text."""

    texts: tuple[Polled, ...]
    names: tuple[str, ...]  # of the annotators, sorted
    labels: tuple[str, ...]  # sorted
    opinions: tuple[Opinion, ...]
    votes: Votes

    def repeated(self) -> list[SetAside]:
        """All keys of a text but its first."""
        said = "the same text as {}, which has all opinions on it"
        return [SetAside(key, "duplicate", said.format(text.keys[0])) for text in self.texts for key in text.keys[1:]]


def poll(opinions: Sequence[Opinion], more_labels: Iterable[str]) -> Poll:
    """The votes; labels are those of the opinions and `more_labels`. Texts are one if case and spacing alone differ.

    Raises ValueError for opinions of several tasks.
    """
    tasks = sorted({opinion.task for opinion in opinions})
    if len(tasks) > 1:
        raise ValueError(f"opinions of several tasks, {', '.join(tasks)}: curate one at a time")
    of_text: dict[str, list[Opinion]] = defaultdict(list)
    for opinion in sorted(opinions, key=lambda one: (one.event_time_s, one.key, one.labelled_at_s, one.annotator)):
        of_text[normalised(opinion.text)].append(opinion)
    texts = tuple(Polled(its[0], tuple(dict.fromkeys(one.key for one in its))) for its in of_text.values())
    latest: dict[tuple[int, str], Opinion] = {}
    for text, its in enumerate(of_text.values()):
        for one in sorted(its, key=lambda one: (one.labelled_at_s, one.event_time_s, one.key, one.label)):
            latest[text, one.annotator] = one
    names = tuple(sorted({name for _, name in latest}))
    labels = tuple(sorted({one.label for one in latest.values()} | set(more_labels)))
    number, column = ({name: place for place, name in enumerate(its)} for its in (names, labels))
    votes = Votes(
        text=np.array([text for text, _ in latest], np.int64),
        voter=np.array([number[name] for _, name in latest], np.int64),
        label=np.array([column[one.label] for one in latest.values()], np.int64),
        labels=max(2, len(labels)),  # where all carry one label, there is still another that they might
    )
    return Poll(texts, names, labels, tuple(latest.values()), votes)
