"""Distillation: a lesson to which teachers add what they think of its texts, and of texts that nobody has labelled.

The student learns from a teacher's whole distribution (Hinton, Vinyals and Dean 2015): `models.losses` says how. An
unlabelled text costs nothing and carries what the teacher knows beyond the labelled ones.

    home()/teachers/<task>/<key>/...    releases that were trained to teach; may be deleted at any time
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from heapq import heappush, heapreplace
from itertools import chain
from pathlib import Path

from models.bases import base_folder, weights_sha256
from models.datasets import Columns, Example, Located, data_hash, labels_of, normalised, split
from models.errors import TRAIN_EXTRA, BadDataset, BadTeacher, MissingExtra, ReleaseNotFound
from models.lessons import DEV_FRACTION, Lesson
from models.readers import scan
from models.recipes import knobs_of, teacher_recipe
from models.releases import find_release, home
from models.teachers import Progress, find_teachers, soft_labels

MOST_UNLABELLED = 50_000  # texts, when nothing else is said
BASE = "base:"  # before the name of an encoder that is to become a teacher


def with_dev(lesson: Lesson, seed: int) -> Lesson:
    """The lesson with its development examples set apart, as training with this seed sets them apart.

    Teachers and student then hold out the same texts, whatever seed each of them is trained with. Raises BadDataset
    when none can be held out.
    """
    if lesson.dev_examples:
        return lesson
    rest, held_out = split(lesson.examples, DEV_FRACTION, seed)
    if not held_out:
        raise BadDataset("every label has a single example, so none can be held out: add examples, or give --dev")
    return replace(lesson, examples=rest, dev_examples=held_out)


def taught(
    lessons: Sequence[Lesson], teachers: Sequence[str], unlabelled: Sequence[str], seed: int, progress: Progress
) -> list[Lesson]:
    """The lessons as teachers see them, each with the unlabelled texts; see `unlabelled_for`.

    `teachers` are as `ready_teachers` takes them: a release teaches those of the lessons whose task it serves, one that
    is to be trained is trained for each lesson. A lesson that no teacher knows learns from its labels alone. `seed` is
    that of the student's training. Raises ReleaseNotFound for a release that serves none of the tasks.
    """
    fixed = [with_dev(lesson, seed) for lesson in lessons]
    of_lessons = _by_lesson(fixed, teachers)
    return [
        distilled(lesson, ready_teachers(lesson, its, seed, progress), unlabelled, progress) if its else lesson
        for lesson, its in zip(fixed, of_lessons, strict=True)
    ]


def unlabelled_for(
    lessons: Sequence[Lesson], paths: Iterable[Path], most: int, seed: int, text_column: str = "text"
) -> list[str]:
    """Texts of data files, as `read_unlabelled` takes them, that are in none of the lessons: nor what they grade on."""
    known = [example.text for lesson in lessons for example in (*lesson.examples, *(lesson.dev_examples or ()))]
    return read_unlabelled(paths, most, seed, known, text_column)


def _by_lesson(lessons: Sequence[Lesson], teachers: Sequence[str]) -> list[list[str]]:
    """Which of the teachers teach each lesson."""
    found: list[list[str]] = [[] for _ in lessons]
    for ref in teachers:
        unknown = None
        for lesson, its in zip(lessons, found, strict=True):
            try:
                if not ref.startswith(BASE):
                    find_release(lesson.task.name, ref)
            except ReleaseNotFound as error:
                unknown = unknown or error
            else:
                its.append(ref)
        if unknown is not None and not any(ref in its for its in found):
            raise unknown
    return found


def ready_teachers(lesson: Lesson, refs: Sequence[str], seed: int, progress: Progress) -> list[str]:
    """The same teachers as releases that are there.

    `base:NAME` means a release of that base encoder, fine-tuned now on the lesson, unless that was done before;
    `base:NAME@SEED` one with a seed of its own, for an ensemble. Raises BadTeacher, and what training raises.
    """
    return [str(_trained(lesson, ref, seed, progress)) if ref.startswith(BASE) else ref for ref in refs]


def _trained(lesson: Lesson, ref: str, seed: int, progress: Progress) -> Path:
    name, _, own = ref.removeprefix(BASE).partition("@")
    if not name or not (own or "0").isdecimal():
        raise BadTeacher(f"teacher {ref}: expected {BASE}NAME or {BASE}NAME@SEED, such as {BASE}all-mpnet-base-v2@1")
    try:
        from models.export import make_release
        from models.train_settings import TrainSettings
        from models.training import train
    except ImportError as error:
        raise MissingExtra(f"training a teacher needs the train extra: {TRAIN_EXTRA} ({error})") from error
    base = base_folder(name)
    recipe = teacher_recipe([example.label for example in lesson.examples])
    settings = TrainSettings(**{**knobs_of(recipe), "base": name, "seed": int(own or seed)})
    dest = home() / "teachers" / lesson.task.name / _key(lesson, weights_sha256(base), settings.model_dump_json())
    if not dest.is_dir():

        def on_progress(what: str, done: int, total: int) -> None:
            progress(f"{ref}: {what}", done, total)

        checkpoint = train([lesson], settings, on_progress, state_folder=home() / "unfinished")
        make_release(checkpoint, recipe, dest, progress)
    return dest


def _key(lesson: Lesson, base_sha256: str, settings: str) -> str:
    """All that a teacher follows from."""
    parts = [data_hash(lesson.examples), data_hash(lesson.dev_examples or ()), base_sha256, settings]
    return hashlib.sha256("\n".join([*parts, lesson.task.model_dump_json()]).encode()).hexdigest()[:16]


def distilled(lesson: Lesson, teachers: Sequence[str], unlabelled: Sequence[str], progress: Progress) -> Lesson:
    """The lesson with the teachers' probabilities for each example, and `unlabelled` texts that only they speak of.

    `teachers` are releases of the lesson's task, by id or directory. Raises BadTeacher, ReleaseNotFound.
    """
    labels = labels_of(lesson.examples)
    found = find_teachers(lesson.task, teachers, labels)
    examples = [*lesson.examples, *(Example(text, "") for text in unlabelled)]
    texts = [example.text for example in examples]
    names = ", ".join(teacher.release for teacher in found)
    return replace(
        lesson,
        examples=examples,
        data_name=f"{lesson.data_name} + {len(unlabelled)} unlabelled texts, taught by {names}",
        soft_targets=soft_labels(lesson.task, found, texts, labels, progress),
    )


def read_unlabelled(
    paths: Iterable[Path], most: int, seed: int, leave_out: Iterable[str], text_column: str = "text"
) -> list[str]:
    """At most `most` texts of data files, whose labels are ignored if there are any: each once, none of `leave_out`.

    Case and spacing make no difference. Of more texts a random part is taken, the same for the same seed, whatever the
    order they come in; no more than `most` are ever held. Raises BadDataset for a file that is none.
    """
    rows = chain.from_iterable(scan(path, Columns(text_column, None)) for path in paths)
    texts = (row.example.text if isinstance(row, Located) else _refused(row.where, row.reason) for row in rows)
    return sampled(texts, most, seed, {normalised(text) for text in leave_out})


def sampled(texts: Iterable[str], most: int, seed: int, leave_out: Collection[str]) -> list[str]:
    """The `most` texts with the smallest keyed hash, in its order: a sample without repetitions (bottom-k).

    Texts that are equal but for case and spacing have one hash, so the first of them counts alone.
    """
    kept: list[tuple[int, str]] = []  # a heap whose top has the largest hash, as it is negative
    there: set[int] = set()
    for text in texts if most else ():
        same = normalised(text)
        value = _hash(same, seed)
        if value in there or same in leave_out or (len(kept) == most and value >= -kept[0][0]):
            continue
        there.add(value)
        if len(kept) < most:
            heappush(kept, (-value, text))
        else:
            largest, _ = heapreplace(kept, (-value, text))
            there.discard(-largest)
    return [text for _, text in sorted(kept, reverse=True)]


def _hash(text: str, seed: int) -> int:
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=16, key=str(seed).encode()).digest(), "big")


def _refused(where: str, reason: str) -> str:
    raise BadDataset(f"{where}: {reason}")
