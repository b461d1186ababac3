"""What keeps a model from forgetting: it learns new texts among old ones, of which the champion may say what it thinks.

The old texts are a buffer of the champion's training data, drawn by label (Rebuffi et al. 2017 keep exemplars of every
class). While the model learns new texts, it can be held to the champion's probabilities for the old ones (Li and Hoiem
2016), by the knob `distill_weight`. Of new texts the champion says nothing: it was wrong about them, or does not know
their label.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.datasets import Example, labels_of, normalised
from models.distillation import sampled
from models.errors import BadDataset
from models.learning.curation import Curated
from models.lessons import Lesson
from models.releases import read_manifest
from models.tasks import Task
from models.teachers import Progress, find_teachers, soft_labels

NEW_SHARE = 0.3  # of the loss, at least, is what the new texts have to say,
MOST_LIFT = 10.0  # though none of them counts more than so many old ones: few labels would be learned by heart

Floats = npt.NDArray[np.float32]


def rehearsed(examples: Sequence[Example], most: int, seed: int) -> list[Example]:
    """At most `most` examples, drawn by label, in their own order: the rare labels whole, the others equally.

    The same examples and seed give the same, and one example more or less changes the draw by about one.
    """
    texts: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        texts[example.label].append(example.text)
    shares = equal_shares({label: len(its) for label, its in texts.items()}, most)
    drawn = {Example(text, label) for label, its in texts.items() for text in sampled(its, shares[label], seed, ())}
    return [example for example in examples if example in drawn]


def equal_shares(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """How many of each label to take so that there are `most` in all: none more than there are, else equally many.

    What rare labels leave over, the commoner ones share.
    """
    shares, left = {}, most
    for place, label in enumerate(sorted(counts, key=lambda one: (counts[one], one))):
        shares[label] = min(counts[label], left // (len(counts) - place))
        left -= shares[label]
    return shares


def lesson_of(
    task: Task,
    champion: Path,
    old: Sequence[Example],
    new: Sequence[Curated],
    data_name: str,
    progress: Progress,
    asks_champion: bool = True,
) -> Lesson:
    """What a successor of a champion is to learn: new texts, and old ones; if asked, with what the champion thinks of
    these.

    A new text takes the place of an old one that says the same. New labels are further columns, in which the champion's
    probabilities for old texts are 0. The new texts weigh, each by its own weight, at least NEW_SHARE of all.
    Raises BadDataset when a label that the champion knows has no example any more: it would be forgotten.
    """
    fresh = {normalised(row.text): row for row in new}
    kept = [example for example in old if normalised(example.text) not in fresh]
    examples = [*kept, *(Example(row.text, row.label) for row in fresh.values())]
    labels = labels_of(examples)
    known = read_manifest(champion).head(task.name).labels
    if gone := sorted(set(known) - set(labels)):
        raise BadDataset(f"{data_name}: the champion knows {', '.join(gone)}, of which there is no example to rehearse")
    return Lesson(
        task,
        examples,
        data_name,
        soft_targets=_champion_says(task, champion, kept, known, labels, len(examples), progress)
        if asks_champion
        else None,
        weights=weights_of(len(kept), [row.weight for row in fresh.values()]),
    )


def weights_of(old: int, new: Sequence[float]) -> Floats:
    """[old + new]: 1 for each old text; the new ones' own, lifted alike until they are NEW_SHARE of the sum."""
    wanted = old * NEW_SHARE / (1 - NEW_SHARE)
    lift = min(MOST_LIFT, max(1.0, wanted / sum(new))) if new else 1.0
    return np.array([1.0] * old + [lift * weight for weight in new], np.float32)


def _champion_says(
    task: Task,
    champion: Path,
    old: Sequence[Example],
    known: Sequence[str],
    labels: Sequence[str],
    rows: int,
    progress: Progress,
) -> Floats:
    """[rows, labels]: its probabilities for the first rows, the old texts; zeros for the others."""
    soft = np.zeros((rows, len(labels)), np.float32)
    texts = [example.text for example in old]
    columns = [labels.index(label) for label in known]
    teachers = find_teachers(task, [str(champion)], known)
    soft[: len(old), columns] = soft_labels(task, teachers, texts, known, progress, "cpu")
    return soft
