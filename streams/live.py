"""Which release serves each task now."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.classifier import Classifier, Encoded
from models.releases import find_release
from models.tasks import Task, load_task
from streams import metrics
from streams.settings import Settings

log = logging.getLogger(__name__)

_WARM_UP = ("warm up", "a somewhat longer text so that a second shape is compiled before the first event arrives")


class TextClassifier(Protocol):
    """What serving needs of a model; `models.classifier.Classifier` is one."""

    @property
    def release(self) -> str:
        """The release's id."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The order of the columns of `run`."""
        ...

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise; a text longer than the model reads is cut and says so. Called on the tokeniser's thread."""
        ...

    def run(self, batch: Sequence[Encoded]) -> NDArray[np.float32]:
        """Calibrated probabilities, [texts, labels]. Called on the model's thread."""
        ...


@dataclass(frozen=True)
class Served:
    """A loaded classifier and what its task decides on its labels."""

    task: Task
    classifier: TextClassifier

    @property
    def release(self) -> str:
        """The release's id, as every prediction names it."""
        return self.classifier.release


def load_served(settings: Settings) -> Mapping[str, Served]:
    """Load, verify and warm up the release of every task an active source asks for.

    Raises:
        models.errors.ModelError: a release is missing or damaged; the message says what to do.
    """
    served = {}
    for name in settings.tasks:
        directory = find_release(name, settings.models.releases.get(name))
        classifier = Classifier.load(directory, device=settings.models.device, threads=settings.models.threads)
        classifier.classify(_WARM_UP)
        served[name] = Served(load_task(str(settings.models.tasks.get(name, name))), classifier)
        metrics.MODEL_INFO.labels(name, classifier.release, classifier.device).set(1)
        log.info("task %s: release %s on %s", name, classifier.release, classifier.device)
    return served
