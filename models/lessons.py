"""What a model is to learn: its tasks' examples, with a part held out to choose and calibrate it on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.datasets import Example, labels_of, split
from models.errors import BadDataset, BadTask
from models.evaluation import target_indices
from models.tasks import Task

DEV_FRACTION = 0.1  # of the training examples, held out when no development data is given


@dataclass(frozen=True)
class Lesson:
    """A task and what it is learned from: checked examples, where they come from, and development data if there are."""

    task: Task
    examples: Sequence[Example]
    data_name: str
    dev_examples: Sequence[Example] | None = None


@dataclass(frozen=True)
class Subject:
    """A lesson made ready: what is learned and what is held out, with targets as numbers of the labels."""

    labels: tuple[str, ...]
    columns: slice
    examples: Sequence[Example]
    targets: np.ndarray
    dev_examples: Sequence[Example]
    dev_targets: np.ndarray

    @property
    def texts(self) -> list[str]:
        """What is learned."""
        return [example.text for example in self.examples]

    @property
    def dev_texts(self) -> list[str]:
        """What is held out."""
        return [example.text for example in self.dev_examples]


def subjects_of(lessons: Sequence[Lesson], seed: int) -> list[Subject]:
    """The lessons made ready, their columns side by side; without development data a tenth of the examples is held out.

    Raises BadTask for two lessons of one task, BadDataset for development data that does not fit.
    """
    names = [lesson.task.name for lesson in lessons]
    if len(set(names)) < len(names):
        raise BadTask(f"a model has one head a task, and these are not all different: {', '.join(names)}")
    subjects, start = [], 0
    for lesson in lessons:
        labels = labels_of(lesson.examples)
        examples, dev_examples = _with_dev(lesson.examples, lesson.dev_examples, seed)
        targets, dev_targets = target_indices(labels, examples), target_indices(labels, dev_examples)
        columns = slice(start, start + len(labels))
        subjects.append(Subject(labels, columns, examples, targets, dev_examples, dev_targets))
        start = columns.stop
    return subjects


def _with_dev(
    examples: Sequence[Example], dev_examples: Sequence[Example] | None, seed: int
) -> tuple[Sequence[Example], Sequence[Example]]:
    if dev_examples:
        return examples, dev_examples
    rest, held_out = split(examples, DEV_FRACTION, seed)
    if not held_out:
        raise BadDataset("every label has a single example, so none can be held out: add examples, or give --dev")
    return rest, held_out


def base_of(lessons: Sequence[Lesson]) -> str:
    """The base encoder that the lessons' tasks agree on. Raises BadTask when they do not."""
    bases = {lesson.task.name: lesson.task.base for lesson in lessons}
    if len(set(bases.values())) > 1:
        named = ", ".join(f"{task}: {base}" for task, base in bases.items())
        raise BadTask(f"one encoder serves all tasks of a release, and theirs differ ({named}); choose one with --base")
    return lessons[0].task.base
