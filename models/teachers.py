"""Teachers: releases of a task, larger or several, whose scores another model learns from.

    home()/soft-labels/<teacher>/<texts>.npy    scores that were computed once; may be deleted at any time

Texts are scored chunk by chunk, and each chunk of each teacher is kept under a hash of both: whoever is interrupted
goes on where it stopped, a further teacher costs only itself, and one with nothing left to score is never loaded.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import numpy.typing as npt

from models.classifier import Classifier
from models.errors import BadTeacher
from models.releases import HeadEntry, Manifest, find_release, home, read_manifest
from models.runtimes import Device
from models.tasks import Task

CHUNK_TEXTS = 512  # scored and kept together

Floats = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


@dataclass(frozen=True)
class Teacher:
    """A release that teaches; `key` is a hash of all that its scores follow from."""

    directory: Path
    release: str
    labels: tuple[str, ...]
    key: str


def find_teachers(task: Task, refs: Sequence[str], labels: Sequence[str]) -> list[Teacher]:
    """The releases of a task that `refs` name, by directory or id, for a student with these labels.

    Raises BadTeacher when one is named twice or its labels are not the student's, ReleaseNotFound, IntegrityError.
    """
    teachers: list[Teacher] = []
    for ref in refs:
        directory = find_release(task.name, ref)
        manifest = read_manifest(directory)
        head = manifest.head(task.name)
        _require_labels(manifest.release, head.labels, labels)
        teacher = Teacher(directory, manifest.release, head.labels, _key(manifest, head, task))
        if teacher.key in {other.key for other in teachers}:
            raise BadTeacher(f"teacher {ref}: is named twice: an ensemble is of different releases")
        teachers.append(teacher)
    return teachers


def soft_labels(
    task: Task,
    teachers: Sequence[Teacher],
    texts: Sequence[str],
    labels: Sequence[str],
    progress: Progress,
    device: Device = "auto",
    runtime: str = "auto",
) -> Floats:
    """Calibrated probabilities [texts, labels] that the teachers give, their mean; columns in the order of `labels`.

    One teacher is loaded at a time. Raises what `Classifier.load` raises, and BadTeacher for scores that are no
    probabilities.
    """
    total = np.zeros((len(texts), len(labels)), np.float32)
    chunks = [range(start, min(start + CHUNK_TEXTS, len(texts))) for start in range(0, len(texts), CHUNK_TEXTS)]
    done, steps = 0, len(chunks) * len(teachers)
    for teacher in teachers:
        columns = [teacher.labels.index(label) for label in labels]
        classifier: Classifier | None = None
        for chunk in chunks:
            part = [texts[row] for row in chunk]
            path = home() / "soft-labels" / teacher.key / f"{_hash(part)}.npy"
            scores = _kept(path, (len(part), len(labels)))
            if scores is None:
                if classifier is None:
                    progress(f"load {teacher.release}", done, steps)
                    classifier = Classifier.load(teacher.directory, task, device, runtime)
                scores = classifier.classify(part)
                _require_probabilities(scores, teacher)
                _keep(scores, path)
            total[chunk.start : chunk.stop] += scores[:, columns]
            done += 1
            progress(f"soft labels of {teacher.release}", done, steps)
    return total / np.float32(len(teachers))


def _require_labels(release: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    if set(found) == set(wanted):
        return
    missing, unknown = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    said = [
        f"{what}: {', '.join(map(repr, its[:5]))}{' ...' if len(its) > 5 else ''}"
        for what, its in (("it does not know", missing), ("the data do not have", unknown))
        if its
    ]
    raise BadTeacher(f"teacher {release}: its labels are not those of the data ({'; '.join(said)})")


def _require_probabilities(scores: Floats, teacher: Teacher) -> None:
    if not np.isfinite(scores).all() or not np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        raise BadTeacher(f"teacher {teacher.release}: gives scores that are no probabilities: train it again")


def _key(manifest: Manifest, head: HeadEntry, task: Task) -> str:
    """Its files, calibration and columns, and how the windows of a long text make one row of scores."""
    alerts = task.alert_columns(head.labels)
    content = [sorted(manifest.files.items()), head.task, head.labels, head.temperature, task.long_text, alerts]
    content += [[bend.lead, bend.temperature] for bend in head.bends]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _hash(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def _kept(path: Path, shape: tuple[int, int]) -> Floats | None:
    """Scores from an earlier run; None when there are none, or what is there is damaged."""
    try:
        scores = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = scores.shape == shape and scores.dtype == np.float32 and np.isfinite(scores).all()
    return scores if whole else None


def _keep(scores: Floats, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        np.save(file, scores, allow_pickle=False)
    os.replace(file.name, path)
