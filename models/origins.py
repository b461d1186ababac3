"""Where a network begins: at a base encoder, or at a release, whose encoder and heads go on learning (a warm start).

A release holds no checkpoint: its weights are read back out of its ONNX graph, in which they keep their names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from models import releases
from models.bases import base_folder, identify
from models.classifier import heads_of
from models.errors import BadRelease, RuntimeUnavailable
from models.lessons import Lesson, Subject, base_of
from models.network import TextClassifier, load_encoder, load_tokenizer, require_reading
from models.releases import MODEL, TOKENIZER, Base, find_release
from models.runtimes.torch import source
from models.train_settings import TrainSettings


@dataclass(frozen=True)
class KnownHead:
    """What a release knows of a task: a row for each label."""

    labels: tuple[str, ...]
    weight: torch.Tensor  # [labels, hidden]
    bias: torch.Tensor  # [labels]


@dataclass(frozen=True)
class Origin:
    """An encoder as it is before it learns, its tokenizer, and the heads that it comes with."""

    tokenizer: Tokenizer
    encoder: Any
    base: Base
    sha256: str  # of the file that the weights came from
    heads: Mapping[str, KnownHead]  # by task; none of a base encoder

    def new_labels(self, task: str, labels: Sequence[str]) -> list[int] | None:
        """Which of a task's labels are new to the origin; None when it has no head for the task."""
        known = self.heads.get(task)
        return None if known is None else [place for place, label in enumerate(labels) if label not in known.labels]

    def fill(self, network: TextClassifier, tasks: Sequence[str], subjects: Sequence[Subject]) -> None:
        """Give the network's heads the rows of all labels that the origin knows.

        Raises BadRelease when there are labels to learn of a task, and it knows none of them.
        """
        for task, subject in zip(tasks, subjects, strict=True):
            if (known := self.heads.get(task)) is None:
                continue
            shared = [label for label in subject.labels if label in known.labels]
            if not shared:
                raise BadRelease(f"start: of task {task} it knows {', '.join(known.labels)}: none of the data's labels")
            into = [subject.columns.start + subject.labels.index(label) for label in shared]
            rows = [known.labels.index(label) for label in shared]
            with torch.no_grad():
                network.head.weight[into] = known.weight[rows]
                network.head.bias[into] = known.bias[rows]


def origin_of(settings: TrainSettings, lessons: Sequence[Lesson], max_tokens: int) -> Origin:
    """The release that `settings.start` names, else the base encoder of the settings or the lessons' tasks.

    Raises BadBase, BadTask, MissingExtra, and for a release BadRelease, IntegrityError, ReleaseNotFound.
    """
    if settings.start is not None:
        return _release(find_release(lessons[0].task.name, settings.start), max_tokens)
    name = settings.base or base_of(lessons)
    folder = base_folder(name)
    tokenizer, encoder, base = load_tokenizer(folder), load_encoder(folder, max_tokens), identify(name, folder)
    return Origin(tokenizer, encoder, base, base.sha256, {})


def _release(directory: Path, max_tokens: int) -> Origin:
    """A release in float32 or float16, or the one that an int8 release was made from."""
    manifest = releases.verify(directory)
    if manifest.precision.startswith("int8"):
        return _release(_uncompressed(directory), max_tokens)
    try:
        trained = source(directory, attention="eager")
    except RuntimeUnavailable as error:
        raise BadRelease(f"start: {directory}: {error}") from error
    encoder: Any = trained.encoder
    require_reading(directory, encoder.config.to_dict(), max_tokens)
    weight, bias = trained.head.weight.detach(), trained.head.bias.detach()
    heads = {
        head.task: KnownHead(head.labels, weight[head.columns], bias[head.columns]) for head in heads_of(manifest.heads)
    }
    tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    return Origin(tokenizer, encoder, manifest.base, manifest.files[MODEL], heads)


def _uncompressed(directory: Path) -> Path:
    """Where the release is that one in int8 was made from. Raises BadRelease, ReleaseNotFound."""
    manifest = releases.read_manifest(directory)
    if manifest.parent is None:
        raise BadRelease(f"start: {directory}: int8 weights are too coarse to learn from, and nothing says what it was")
    found = find_release(manifest.tasks[0], manifest.parent.release)
    if releases.as_parent(found) != manifest.parent:
        raise BadRelease(f"start: {found}: is not the release that {manifest.release} was made from: its hash differs")
    return found
