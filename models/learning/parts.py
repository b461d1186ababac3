"""Champion and candidate in parts of the hold-out and on all of it changed: worse there, though better as a whole?

Whether a part is really worse is asked by the exact test of McNemar, of all parts together by the method of Holm: of
twenty parts one is always worst, by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from models.classifier import Classifier
from models.learning.paired import holm, mcnemar
from models.learning.sides import Bools, Sides, columns_among
from models.learning.verdict import GateSettings, Part
from models.robustness import answers_to_changed
from models.slices import by_length, by_value

Progress = Callable[[str, int, int], None]


def parts_of(sides: Sides, facets: Mapping[str, Sequence[str]]) -> Iterator[Part]:
    """The texts by label, by length and by further facets, each with a value a text; and those out of scope."""
    labels, texts = [one.label for one in sides.examples], [one.text for one in sides.examples]
    given = {by: by_value(values) for by, values in facets.items()}
    for by, values in {"label": labels, "length": by_length(texts), **given}.items():
        held = np.array(values)
        for value in sorted({*values}):
            rows = held == value
            yield _part(by, value, sides.right_before[rows], sides.right_after[rows])
    if sides.strangers:
        yield _part("scope", "out of scope", sides.before.strangers_told, sides.after.strangers_told)


def changed_of(
    champion: Classifier, candidate: Classifier, sides: Sides, settings: GateSettings, progress: Progress
) -> Iterator[Part]:
    """The texts, `robustness_texts` of them at most, after each change that keeps the label."""
    rows = np.random.default_rng(settings.seed).permutation(len(sides.examples))[: settings.robustness_texts]
    if not len(rows):
        return
    texts, targets = [sides.examples[row].text for row in rows], sides.targets[rows]
    answers = []
    for classifier in (champion, candidate):
        columns = columns_among(sides.labels, classifier)
        own = classifier.classify(texts).argmax(axis=1)
        found = answers_to_changed(classifier, texts, own, settings.seed, progress)
        answers.append([(one.name, columns[one.chosen] == targets) for one in found])
    for (name, before), (_, after) in zip(*answers, strict=True):
        yield _part("changed by", name, before, after)


def _part(by: str, value: str, before: Bools, after: Bools) -> Part:
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return Part(
        by=by, value=value, n=len(before), before=float(before.mean()), after=float(after.mean()),
        gained=gained, lost=lost, p_worse=mcnemar(lost, gained), refused=False,
    )  # fmt: skip


def judged_parts(parts: Iterable[Part], settings: GateSettings) -> list[Part]:
    """Which of all these parts speak against the candidate."""
    found = [*parts]
    worse = holm([part.p_worse for part in found], settings.part_error)
    return [
        part.model_copy(update={"refused": (sure and _lost_much(part, settings)) or _below_floor(part, settings)})
        for part, sure in zip(found, worse, strict=True)
    ]


def _lost_much(part: Part, settings: GateSettings) -> bool:
    return part.before - part.after > settings.part_margin


def _below_floor(part: Part, settings: GateSettings) -> bool:
    return settings.part_floor is not None and part.n >= settings.fewest_in_part and part.after < settings.part_floor
