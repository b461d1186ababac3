"""Curation: from everybody's opinions to texts to learn from, each with one label, and a reason for all that is not.

In this order: opinions on one text come together; bursts wait; annotators are graded, and those who are surely worse
than usual wait with all they said; the others agree on each text's label, or it waits; labels that the other texts
contradict wait; what is like the hold-out, the training data or another text goes; no label has too many texts, nor too
many from one annotator or one source. A person lets a text out of quarantine by labelling it too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from models.datasets import Example
from models.learning.curation import Curated, Curation, CurationSettings, SetAside
from models.learning.hearing import agreed_texts, bench_of, graded_annotators
from models.learning.judging import Progress, Vectors
from models.learning.opinions import Opinion
from models.learning.poisoning import bursts, within_shares
from models.learning.polling import poll
from models.learning.repetitions import Parted, outside, unlike_each_other, unlike_training

Encode = Callable[[Sequence[str]], Vectors]
DEFAULT = CurationSettings()


def curate(
    opinions: Sequence[Opinion],
    train: Sequence[Example],
    held_out: Sequence[Example],
    vectors: Encode,
    settings: CurationSettings = DEFAULT,
    progress: Progress | None = None,
) -> Curation:
    """Keep what can be learned from, oldest event first, and set each other key aside exactly once.

    `train` is what the model learns from anyway, `held_out` what it is measured on; `vectors` gives texts' vectors
    [n, width], such as `models.vectors.text_vectors`. The same opinions give the same curation in whatever order they
    come. Raises ValueError for opinions of several tasks, MissingExtra without the `data` extra.
    """
    asked = poll(opinions, [example.label for example in train])
    if not asked.texts:
        return Curation((), (), {})
    seen = vectors([*(example.text for example in train), *(text.first.text for text in asked.texts)])
    bench = bench_of(asked, train, seen)
    hurried = bursts(asked.opinions, settings)
    graded = graded_annotators(bench, hurried, settings, progress)
    kept, waiting = agreed_texts(bench, hurried, graded, settings, progress)
    kept, leaks = outside(kept, [example.text for example in held_out], settings.alike, progress)
    kept, known = unlike_training(kept, train, settings.alike, progress)
    kept, alike = unlike_each_other(kept, settings.alike, progress)
    taught = Counter(example.label for example in train)
    kept, too_many = within_shares(kept, taught, settings)
    kept, older = _newest(kept, settings.most_of_label)
    kept, still_too_many = within_shares(kept, taught, settings)  # of fewer texts a share is fewer
    aside = [*asked.repeated(), *waiting, *leaks, *known, *alike, *too_many, *older, *still_too_many]
    return Curation(
        tuple(sorted(kept, key=lambda row: (row.event_time_s, row.key))),
        tuple(sorted(aside, key=lambda one: one.key)),
        graded,
    )


def _newest(rows: Sequence[Curated], most: int) -> Parted:
    """At most so many texts of each label, the newest."""
    its: dict[str, list[Curated]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (-row.event_time_s, row.key)):
        its[row.label].append(row)
    kept = [row for label in sorted(its) for row in its[label][:most]]
    said = "there are {} newer texts of {!r}"
    aside = [SetAside(row.key, "quota", said.format(most, label)) for label in sorted(its) for row in its[label][most:]]
    return kept, aside
