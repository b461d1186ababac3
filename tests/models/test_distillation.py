import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.datasets import Example, normalised
from models.distillation import (
    distilled,
    read_unlabelled,
    ready_teachers,
    sampled,
    taught,
    unlabelled_for,
    with_dev,
)
from models.errors import BadDataset, BadTeacher, ReleaseNotFound
from models.lessons import Lesson, subjects_of
from models.releases import read_manifest
from models.tasks import Task
from models.train_settings import TrainSettings
from models.training import train
from tests.models.tiny import ignore, make_examples, make_money

pytestmark = pytest.mark.usefixtures("home")
DataFile = Callable[[str, list[Example]], Path]


words = st.text("ab C\t", max_size=4)


@given(st.lists(words, max_size=40), st.integers(1, 12), st.integers(0, 3), st.sets(words, max_size=3))
@settings(deadline=None)
def test_a_sample_has_every_text_once_and_as_many_as_fit(
    texts: list[str], most: int, seed: int, known: set[str]
) -> None:
    leave_out = {normalised(text) for text in known}
    found = sampled(texts, most, seed, leave_out)
    distinct = {normalised(text) for text in texts} - leave_out
    assert len(found) == min(most, len(distinct))
    assert len({normalised(text) for text in found}) == len(found)
    assert {normalised(text) for text in found} <= distinct
    assert set(found) <= set(texts)


@given(st.lists(words, max_size=40), st.integers(1, 12), st.integers(0, 3))
@settings(deadline=None)
def test_a_sample_does_not_depend_on_the_order_of_its_texts(texts: list[str], most: int, seed: int) -> None:
    found = [normalised(text) for text in sampled(texts, most, seed, ())]
    assert [normalised(text) for text in sampled(texts[::-1], most, seed, ())] == found


def test_another_seed_is_another_sample_and_each_text_has_its_chance() -> None:
    texts = [str(number) for number in range(200)]
    samples = [sampled(texts, 50, seed, ()) for seed in range(40)]
    assert len({tuple(sample) for sample in samples}) == 40
    times = np.bincount([int(text) for sample in samples for text in sample], minlength=200)
    assert abs(times[:100].mean() - 10) < 1  # 40 samples of a quarter: ten times each, early or late


def test_unlabelled_texts_are_read_without_what_is_known(data_file: DataFile, tmp_path: Path) -> None:
    labelled = data_file("some.jsonl", make_examples(6))
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"text": "Fresh news"}\n{"text": "fresh  NEWS", "source": "x"}\n{"text": "other news"}\n')
    known = [example.text for example in make_examples(4)]
    found = read_unlabelled([labelled, bare], 100, 1, known)
    assert {normalised(text) for text in found} == {
        "fresh news", "other news", *(normalised(example.text) for example in make_examples(2, start=4))
    }  # fmt: skip
    bare.write_text('{"text": "fine"}\n{"title": "no text"}\n')
    with pytest.raises(BadDataset, match=r"bare\.jsonl:2: field `text` must be a non-empty string"):
        read_unlabelled([bare], 100, 1, ())


def test_what_is_held_out_is_what_training_would_hold_out(tiny_task: Task) -> None:
    lesson = Lesson(tiny_task, make_examples(60), "tone.jsonl")
    (subject,) = subjects_of([lesson], seed=3)
    fixed = with_dev(lesson, seed=3)
    assert list(fixed.examples) == list(subject.examples)
    assert list(fixed.dev_examples or ()) == list(subject.dev_examples)
    assert with_dev(fixed, seed=9) is fixed
    with pytest.raises(BadDataset, match="none can be held out"):
        with_dev(Lesson(tiny_task, make_examples(2), "two.jsonl"), seed=3)


def test_a_distilled_lesson_says_what_the_teacher_thinks_of_each_text(tiny_task: Task, tiny_release: Path) -> None:
    lesson = Lesson(tiny_task, make_examples(20), "tone.jsonl", make_examples(6, start=100))
    unlabelled = [example.text for example in make_examples(5, start=200)]
    found = distilled(lesson, [str(tiny_release)], unlabelled, ignore)
    assert list(found.examples) == [*lesson.examples, *(Example(text, "") for text in unlabelled)]
    assert found.data_name == f"tone.jsonl + 5 unlabelled texts, taught by {read_manifest(tiny_release).release}"
    assert found.soft_targets is not None
    (subject,) = subjects_of([found], seed=1)
    assert subject.soft_targets is not None
    assert (subject.soft_targets[:20].argmax(axis=1) == subject.targets[:20]).mean() >= 0.8
    assert (subject.targets[20:] == -1).all()


def test_a_student_learns_from_unlabelled_text_what_few_examples_do_not_say(
    tiny_task: Task, tiny_release: Path, data_file: DataFile
) -> None:
    few, dev = make_examples(6), make_examples(80, start=700)
    lesson = Lesson(tiny_task, few, "few.jsonl", dev)
    settings = TrainSettings(epochs=6, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True)
    alone = train([lesson], settings, ignore).heads[0].dev_macro_f1
    unlabelled = data_file("unlabelled.jsonl", make_examples(160, start=200))
    (lesson,) = taught([lesson], [str(tiny_release)], unlabelled_for([lesson], [unlabelled], 200, 7), 7, ignore)
    together = train([lesson], settings, ignore).heads[0].dev_macro_f1
    assert alone < 0.75
    assert together > 0.9


def test_of_several_lessons_each_is_taught_by_the_teachers_of_its_task(
    tiny_task: Task, money_task: Task, tiny_release: Path, joint_release: Path, data_file: DataFile
) -> None:
    tone = Lesson(tiny_task, make_examples(20), "tone.jsonl", make_examples(6, start=100))
    money = Lesson(money_task, make_money(21), "money.jsonl", make_money(6, start=100))
    more = data_file("more.jsonl", [*make_examples(4, start=200), *make_money(6, start=100), *make_examples(2)])
    texts = unlabelled_for([tone, money], [more], 100, 7)
    found = taught([tone, money], [str(tiny_release), str(joint_release)], texts, 7, ignore)
    single, joint = read_manifest(tiny_release).release, read_manifest(joint_release).release
    names = [lesson.data_name.partition(" + ")[2] for lesson in found]  # nobody is taught what is to be graded
    assert names == [f"4 unlabelled texts, taught by {single}, {joint}", f"4 unlabelled texts, taught by {joint}"]
    assert [one.soft_targets.shape for one in found if one.soft_targets is not None] == [(24, 2), (25, 3)]
    alone = taught([tone, money], [str(tiny_release)], texts, 7, ignore)
    assert alone[0].soft_targets is not None
    assert alone[1] == money
    with pytest.raises(ReleaseNotFound, match="task 'tone' has no release 'nobody'"):
        taught([tone, money], [str(joint_release), "nobody"], [], 7, ignore)


def test_teachers_are_trained_once_and_an_ensemble_has_seeds(
    tiny_task: Task, tiny_base: Path, tiny_release: Path
) -> None:
    lesson = Lesson(tiny_task, make_examples(40), "tone.jsonl", make_examples(10, start=100))
    refs = [f"base:{tiny_base}@8", str(tiny_release)]
    first, second = ready_teachers(lesson, refs, 7, ignore)
    assert (read_manifest(Path(first)).seed, second) == (8, str(tiny_release))

    def refuse(what: str, done: int, total: int) -> None:
        raise AssertionError(f"trained again: {what}")

    assert ready_teachers(lesson, refs, 7, refuse) == [first, second]
    assert ready_teachers(lesson, [f"base:{tiny_base}"], 8, refuse) == [first]  # the student's seed, if it has none
    for other, seed in ((lesson, 7), (replace(lesson, examples=make_examples(42)), 8)):
        with pytest.raises(AssertionError, match="trained again"):
            ready_teachers(other, [f"base:{tiny_base}"], seed, refuse)
    found = distilled(lesson, [first, second], ["profit"], ignore)
    assert found.soft_targets is not None and found.soft_targets.shape == (41, 2)


def test_few_examples_are_learned_by_a_teacher_as_few_examples_are(tiny_task: Task, tiny_base: Path) -> None:
    recipes = []
    for count in (24, 40):
        lesson = Lesson(tiny_task, make_examples(count), "tone.jsonl", make_examples(10, start=100))
        (teacher,) = ready_teachers(lesson, [f"base:{tiny_base}"], 7, ignore)
        recipes.append(read_manifest(Path(teacher)).recipe)
    assert recipes == ["few-shot-teacher", "teacher"]


@pytest.mark.parametrize("ref", ["base:", "base:@3", "base:some@x", "base:some@-1"])
def test_a_teacher_to_train_has_a_base_and_a_seed(tiny_task: Task, ref: str) -> None:
    with pytest.raises(BadTeacher, match="expected base:NAME or base:NAME@SEED"):
        ready_teachers(Lesson(tiny_task, make_examples(20), "x"), [ref], 7, ignore)


def test_the_sample_fits_its_lesson_when_there_is_more_text(data_file: DataFile, tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(300)))
    assert len(read_unlabelled([path], 50, 1, ())) == 50
