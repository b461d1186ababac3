"""One release at one task, as the drift watch sees it: from predictions to how it stands, and what to ask people about.

predictions -> label, confidence          all of them
their texts -> length, unknown, meaning    of a sample, as the texts have to be fetched
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from models.classifier import Classifier
from models.embeddings import TextVectors
from models.errors import IntegrityError
from models.learning.alarms import Standing
from models.learning.drift import Ints, Quantity, Tally, distance, shifts
from models.learning.estimated_accuracy import Realised
from models.learning.pool import Pool
from models.learning.profiles import (
    PROFILE,
    PROFILE_VECTORS,
    Profile,
    Windows,
    read_profiles,
    token_counts,
    unknown_shares,
)
from models.learning.rolling import Rolling
from models.learning.selection import RANDOM_SHARE, Pick, picked, uncertainty
from models.releases import read_manifest
from models.tasks import Task
from streams.events import Coordinates

MEANING = "meaning"  # the quantity that text vectors tell
LEAST_VECTORS = 30  # of texts that came, to be compared with those of the profile
BURST = 50  # texts that may be fetched at once
CANDIDATES = 300  # texts to choose from at a time: half of them at random, half the most uncertain
COMPARED_SHARE = 0.5  # of the labels asked for, while a challenger is to be judged by random ones
REMEMBERED = 1000  # texts asked about, that new ones should differ from

Floats = np.ndarray


@dataclass(frozen=True)
class Reference:
    """A release as something to compare with."""

    release: str
    labels: tuple[str, ...]
    profile: Profile
    windows: Callable[[Sequence[str]], Sequence[Windows]]
    vectors: Callable[[Sequence[str]], Floats]

    @classmethod
    def load(cls, directory: Path, task: Task) -> Reference:
        """Of a release's directory.

        Raises:
            IntegrityError: it is damaged, or was made before releases had a profile.
            MissingExtra: no onnx package.
        """
        profile = read_profiles(directory).get(task.name)
        if profile is None:
            raise IntegrityError(f"{directory}: has no {PROFILE} with task {task.name!r}; train it again")
        classifier = Classifier.load(directory, task, device="cpu", runtime="onnxruntime-fp32", threads=1)
        vectors = TextVectors(directory, classifier)

        def windows(texts: Sequence[str]) -> Sequence[Windows]:
            return [one.windows for one in classifier.model.encode(texts)]

        manifest = read_manifest(directory)
        return cls(manifest.release, manifest.head(task.name).labels, profile, windows, vectors)


class Seen(NamedTuple):
    """A prediction, as it came, the broker's time stamp of it, and its record's key."""

    prediction: Mapping[str, Any]
    at_s: float
    key: str = ""

    @property
    def at(self) -> Coordinates:
        """Where its event lies."""
        source = self.prediction["source"]
        return Coordinates(source["topic"], source["partition"], source["offset"])


class Asked(NamedTuple):
    """A text that a person should label, and why it was chosen."""

    seen: Seen
    text: str
    pick: Pick


class Watched:
    """Follows one release at one task.

    Args:
        task: its name.
        reference: the release.
        window_s: how long a prediction counts.
        seed: of what is drawn at random.
    """

    def __init__(self, task: str, reference: Reference, window_s: float, seed: int = 0) -> None:
        self.task = task
        self.reference = reference
        self._window_s = window_s
        self._columns = {label: column for column, label in enumerate(reference.labels)}
        self._predictions, self._texts = Rolling(window_s), Rolling(window_s)
        self._vectors: deque[tuple[float, Floats]] = deque(maxlen=PROFILE_VECTORS)
        self._to_fetch: list[Seen] = []
        self._allowed, self._last_s = float(BURST), -np.inf
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._pool: Pool[Seen] = Pool(CANDIDATES // 2, CANDIDATES // 2, seed)
        self._asked: deque[Floats] = deque(maxlen=REMEMBERED)

    def saw(self, predictions: Sequence[Seen]) -> None:
        """Count predictions of this release."""
        known = [one for one in predictions if one.prediction["label"] in self._columns]
        if not known:
            return
        profile = self.reference.profile
        # Together if they came together: a slot of the window is coarser than the batches that are read.
        columns = [self._columns[one.prediction["label"]] for one in known]
        scores = [one.prediction["score"] for one in known]
        self._predictions.add(profile.tally(columns, scores), max(one.at_s for one in known))
        self.offer(known)
        for one in known:
            if self._sampled(one.at_s):
                self._to_fetch.append(one)

    def offer(self, predictions: Sequence[Seen]) -> None:
        """People could be asked about these, which are of one release, this or another."""
        spread = np.array([list(one.prediction["scores"].values()) for one in predictions])
        for one, unsure in zip(predictions, uncertainty(spread), strict=True):
            self._pool.offer(one, float(unsure))

    def _sampled(self, at_s: float) -> bool:
        """As many in a window as the profile has, however many come, and at uneven times: some come in a rhythm."""
        passed_s = max(0.0, at_s - self._last_s) if self._last_s > -np.inf else 0.0
        self._allowed = min(BURST, self._allowed + passed_s * PROFILE_VECTORS / self._window_s)
        self._last_s = max(self._last_s, at_s)
        if self._allowed < 1:
            return False
        self._allowed -= 2 * self._random.random()
        return True

    @property
    def wanted(self) -> list[Coordinates]:
        """Where the texts lie that the next `read` can use."""
        return [one.at for one in self._to_fetch]

    def read(self, texts: Mapping[Coordinates, str]) -> None:
        """Compare sampled texts, those of them that were found."""
        found = [(one.at_s, texts[one.at]) for one in self._to_fetch if one.at in texts]
        self._to_fetch.clear()
        if not found:
            return
        bins, known = self.reference.profile.bins, self.reference.profile.known
        windows = self.reference.windows([text for _, text in found])
        for (at_s, _), own in zip(found, windows, strict=True):
            counts: dict[Quantity, Ints] = {
                "length": bins["length"].count(token_counts([own])),
                "unknown": bins["unknown"].count(unknown_shares([own], known)),
            }
            self._texts.add(Tally(counts), at_s)
        vectors = self.reference.vectors([text for _, text in found])
        self._vectors.extend(zip((at_s for at_s, _ in found), vectors, strict=True))

    def standing(self, now_s: float, labelled: Realised | None, new_labels: int) -> Standing:
        """How the release stands now."""
        profile, seen = self.reference.profile, self._predictions.total(now_s)
        while self._vectors and self._vectors[0][0] < now_s - self._window_s:
            self._vectors.popleft()
        moved = shifts(profile.bins, seen) | shifts(profile.bins, self._texts.total(now_s))
        if profile.vectors is not None and len(self._vectors) >= LEAST_VECTORS:
            moved[MEANING] = distance(profile.vectors, np.stack([vector for _, vector in self._vectors]))
        return Standing(
            self.task, self.reference.release, moved, seen.expected, profile.expected_accuracy, labelled, new_labels
        )

    @property
    def candidates(self) -> list[Seen]:
        """What people could be asked about: it came since they were asked last."""
        return list(self._pool)

    def ask(
        self,
        texts: Mapping[Coordinates, str],
        labels: int,
        seed: int,
        compared: Callable[[Seen], bool] | None = None,
    ) -> list[Asked]:
        """Choose up to so many of the candidates whose texts were found, and begin to collect new ones.

        Those at random are drawn from the uniform sample among the candidates. While a challenger scores some events,
        which `compared` tells, they are drawn from these, and are half of all: its judge counts no other labels.
        """
        found = [one for one in self.candidates if one.at in texts]
        uniform = {id(one) for one in self._pool.sample}
        sample = [
            place for place, one in enumerate(found) if id(one) in uniform and (compared is None or compared(one))
        ]
        self._pool.empty()
        if not found or not labels:
            return []
        vectors = self.reference.vectors([texts[one.at] for one in found])
        unsure = uncertainty(np.array([list(one.prediction["scores"].values()) for one in found]))
        known = np.stack(self._asked) if self._asked else None
        share = RANDOM_SHARE if compared is None else COMPARED_SHARE
        picks = picked(unsure, vectors, labels, seed, known, sample, share)
        self._asked.extend(vectors[pick.place] for pick in islice(picks, REMEMBERED))
        return [Asked(found[pick.place], texts[found[pick.place].at], pick) for pick in picks]
