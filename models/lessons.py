"""What a model is to learn: its tasks' examples, with a part held out to choose and calibrate it on."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.augmentation import AugmentSettings, augment
from models.datasets import Example, held_out_rows, labels_of
from models.errors import BadDataset, BadTask
from models.evaluation import target_indices, without_strangers
from models.out_of_scope import OUTSIDE_LABELS
from models.tasks import Task

DEV_FRACTION = 0.1  # of the training examples, held out when no development data is given
UNLABELLED = -1  # the target of an example without a label
LEAST_LETTERS = 2  # of a label's name that is to be read: "L0" is a number

Floats = npt.NDArray[np.float32]
Targets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lesson:
    """A task and what it is learned from: checked examples, where they come from, and development data if there are.

    `soft_targets` [examples, labels] are a teacher's probabilities at temperature 1, their columns the labels, sorted.
    With them an example's label may be empty: then only the teacher speaks of it. A row of zeros says that the teacher
    does not speak of a labelled example. `weights` [examples], above 0, are how much each of them counts.
    Development examples labelled out of scope need no such label among the examples: they are strangers then.
    """

    task: Task
    examples: Sequence[Example]
    data_name: str
    dev_examples: Sequence[Example] | None = None
    soft_targets: Floats | None = None
    weights: Floats | None = None


@dataclass(frozen=True)
class Subject:
    """A lesson made ready: what is learned and what is held out, with targets as numbers of the labels."""

    labels: tuple[str, ...]
    columns: slice
    examples: Sequence[Example]
    targets: Targets  # UNLABELLED where there is no label
    soft_targets: Floats | None
    weights: Floats | None
    dev_examples: Sequence[Example]
    dev_targets: Targets
    strangers: Sequence[Example]  # of the development examples, those out of scope for which there is no label

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

    Raises BadTask for two lessons of one task, BadDataset for development data or soft targets that do not fit.
    """
    names = [lesson.task.name for lesson in lessons]
    if len(set(names)) < len(names):
        raise BadTask(f"a model has one head a task, and these are not all different: {', '.join(names)}")
    subjects, start = [], 0
    for lesson in lessons:
        labels = labels_of(lesson.examples)
        _refuse_what_does_not_fit(lesson, labels)
        kept, dev_examples = _with_dev(lesson, seed)
        dev_examples, strangers = without_strangers(labels, dev_examples)
        columns = slice(start, start + len(labels))
        subject = Subject(
            labels=labels,
            columns=columns,
            examples=[lesson.examples[row] for row in kept],
            targets=_targets(labels, [lesson.examples[row] for row in kept]),
            soft_targets=None if lesson.soft_targets is None else lesson.soft_targets[kept],
            weights=None if lesson.weights is None else lesson.weights[kept],
            dev_examples=dev_examples,
            dev_targets=target_indices(labels, dev_examples),
            strangers=strangers,
        )
        subjects.append(subject)
        start = columns.stop
    return subjects


def with_variants(subject: Subject, settings: AugmentSettings, seed: int) -> Subject:
    """The subject, learned also from variants of its examples; what is held out stays as it is.

    Raises BadDataset for a subject with a teacher's soft targets, as the teacher has not seen the variants, or with
    weights, as nothing says what a variant counts.
    """
    if subject.weights is not None:
        raise BadDataset("augment: the examples have weights and their variants would have none: augment them first")
    if subject.soft_targets is not None:
        raise BadDataset("augment: a teacher scored the examples alone: augment the data first, then let it score them")
    variants = augment(subject.examples, settings, random.Random(seed))  # noqa: S311 - repeatable, nothing secret
    targets = np.concatenate([subject.targets, _targets(subject.labels, variants)])
    return replace(subject, examples=[*subject.examples, *variants], targets=targets)


def with_names(subject: Subject) -> Subject:
    """The subject, learned also from its labels' names, each one text more of its label; what is held out stays.

    A name says nothing that has fewer than two letters, or that stands for out of scope.
    """
    names = [(label, words_of(label)) for label in subject.labels if label not in OUTSIDE_LABELS]
    added = [Example(words, label) for label, words in names if sum(map(str.isalpha, words)) >= LEAST_LETTERS]
    soft, weights = subject.soft_targets, subject.weights
    return replace(
        subject,
        examples=[*subject.examples, *added],
        targets=np.concatenate([subject.targets, _targets(subject.labels, added)]),
        soft_targets=None if soft is None else np.pad(soft, ((0, len(added)), (0, 0))),  # of these no teacher speaks
        weights=None if weights is None else np.pad(weights, (0, len(added)), constant_values=weights.mean()),
    )


def words_of(label: str) -> str:
    """A label's name as words: `card_notWorking` is `card not working`."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return " ".join(re.sub(r"[\W_]+", " ", apart).lower().split())


def _refuse_what_does_not_fit(lesson: Lesson, labels: tuple[str, ...]) -> None:
    weights = lesson.weights
    if weights is not None and (
        weights.shape != (len(lesson.examples),) or not 0 < weights.min() <= weights.max() < np.inf
    ):
        raise BadDataset(
            f"{lesson.data_name}: weights must be a number above 0 for each of {len(lesson.examples)} examples"
        )
    if lesson.soft_targets is None:
        if unlabelled := sum(not example.label for example in lesson.examples):
            raise BadDataset(f"{lesson.data_name}: {unlabelled} examples have no label, and no teacher speaks of them")
        return
    found, expected = lesson.soft_targets.shape, (len(lesson.examples), len(labels))
    if found != expected:
        raise BadDataset(f"{lesson.data_name}: soft targets of shape {found}, expected [examples, labels] {expected}")
    sums, labelled = lesson.soft_targets.sum(axis=1), np.array([bool(example.label) for example in lesson.examples])
    if not np.all(np.isclose(sums, 1, atol=1e-3) | (labelled & (sums == 0))) or lesson.soft_targets.min() < 0:
        raise BadDataset(f"{lesson.data_name}: soft targets must be probabilities: each row adds up to 1")


def _targets(labels: tuple[str, ...], examples: Sequence[Example]) -> Targets:
    column_of = {label: column for column, label in enumerate(labels)}
    return np.array([column_of.get(example.label, UNLABELLED) for example in examples], np.int64)


def _with_dev(lesson: Lesson, seed: int) -> tuple[list[int], Sequence[Example]]:
    """The rows to learn from, and the development examples."""
    if lesson.dev_examples:
        return list(range(len(lesson.examples))), lesson.dev_examples
    held = held_out_rows([example.label for example in lesson.examples], DEV_FRACTION, seed)
    if not held:
        raise BadDataset("every label has a single example, so none can be held out: add examples, or give --dev")
    kept = [row for row in range(len(lesson.examples)) if row not in held]
    return kept, [lesson.examples[row] for row in sorted(held)]


def base_of(lessons: Sequence[Lesson]) -> str:
    """The base encoder that the lessons' tasks agree on. Raises BadTask when they do not."""
    bases = {lesson.task.name: lesson.task.base for lesson in lessons}
    if len(set(bases.values())) > 1:
        named = ", ".join(f"{task}: {base}" for task, base in bases.items())
        raise BadTask(f"one encoder serves all tasks of a release, and theirs differ ({named}); choose one with --base")
    return lessons[0].task.base
