from dataclasses import replace

import numpy as np
import pytest

from models.augmentation import AugmentSettings
from models.datasets import Example
from models.errors import BadDataset, BadTask
from models.lessons import UNLABELLED, Lesson, base_of, subjects_of, with_names, with_variants, words_of
from models.tasks import Task
from tests.models.tiny import make_examples, make_money

TONE, MONEY = Task(name="tone"), Task(name="money")


def test_columns_lie_side_by_side_and_targets_are_numbers_of_a_tasks_own_labels() -> None:
    dev = [Example("x", "yen"), Example("y", "dollar")]
    lessons = [Lesson(TONE, make_examples(40), "tone"), Lesson(MONEY, make_money(30), "money", dev)]
    tone, money = subjects_of(lessons, seed=7)
    assert (tone.columns, money.columns) == (slice(0, 2), slice(2, 5))
    assert money.labels == ("dollar", "euro", "yen")
    assert money.dev_targets.tolist() == [2, 0]
    assert money.dev_texts == ["x", "y"]
    assert len(money.examples) == 30  # nothing is held out where development data is given
    assert len(tone.examples) + len(tone.dev_examples) == 40
    assert not set(tone.texts) & set(tone.dev_texts)
    assert sorted(set(tone.targets.tolist())) == [0, 1]


def test_one_head_a_task() -> None:
    lesson = Lesson(TONE, make_examples(20), "tone")
    with pytest.raises(BadTask, match="one head a task, and these are not all different: tone, tone"):
        subjects_of([lesson, lesson], seed=7)


def test_development_data_must_fit_and_single_examples_leave_none() -> None:
    with pytest.raises(BadDataset, match="'odd' is not among"):
        subjects_of([Lesson(TONE, make_examples(20), "tone", [Example("x", "odd")])], seed=7)
    with pytest.raises(BadDataset, match="every label has a single example"):
        subjects_of([Lesson(TONE, make_examples(2), "tone")], seed=7)


def test_tasks_of_one_encoder_agree_on_it() -> None:
    other = Task(name="money", base="./other")
    assert base_of([Lesson(TONE, [], "tone"), Lesson(MONEY, [], "money")]) == TONE.base
    with pytest.raises(BadTask, match=r"theirs differ \(tone: .*, money: \./other\); choose one with --base"):
        base_of([Lesson(TONE, [], "tone"), Lesson(other, [], "money")])


def test_soft_targets_stay_with_their_examples_and_unlabelled_ones_are_never_held_out() -> None:
    examples = [Example(one.text, one.label if row % 3 else "") for row, one in enumerate(make_examples(60))]
    soft = np.full((60, 2), 0.5, np.float32) + np.arange(60, dtype=np.float32)[:, None] / 1000 * np.array([[1, -1]])
    lesson = Lesson(TONE, examples, "tone", soft_targets=soft.astype(np.float32))
    (tone,) = subjects_of([lesson], seed=7)
    assert tone.labels == ("bad", "good")
    assert tone.soft_targets is not None
    assert len(tone.examples) == len(tone.soft_targets) == 56
    for example, target, row in zip(tone.examples, tone.targets, tone.soft_targets, strict=True):
        place = examples.index(example)
        assert row[0] == pytest.approx(0.5 + place / 1000)
        assert target == (UNLABELLED if place % 3 == 0 else tone.labels.index(example.label))
    assert all(example.label for example in tone.dev_examples)


def test_soft_targets_must_fit_and_unlabelled_examples_need_them() -> None:
    lesson = Lesson(TONE, [*make_examples(20), Example("x", "")], "tone.jsonl")
    with pytest.raises(BadDataset, match=r"tone.jsonl: 1 examples have no label, and no teacher speaks of them"):
        subjects_of([lesson], seed=7)
    with pytest.raises(BadDataset, match=r"soft targets of shape \(20, 2\), expected .* \(21, 2\)"):
        subjects_of([replace(lesson, soft_targets=np.full((20, 2), 0.5, np.float32))], seed=7)
    with pytest.raises(BadDataset, match="each row adds up to 1"):
        subjects_of([replace(lesson, soft_targets=np.full((21, 2), 0.4, np.float32))], seed=7)


def test_development_texts_out_of_scope_are_strangers_where_no_label_stands_for_them() -> None:
    dev = [Example("x", "good"), Example("weather", "oos"), Example("y", "bad"), Example("tennis", "out_of_scope")]
    (subject,) = subjects_of([Lesson(TONE, make_examples(20), "tone", dev)], seed=7)
    assert subject.dev_texts == ["x", "y"]
    assert [one.text for one in subject.strangers] == ["weather", "tennis"]
    known = [*make_examples(20), *(Example(f"sport {number}", "oos") for number in range(5))]
    (subject,) = subjects_of([Lesson(TONE, known, "tone", dev[:3])], seed=7)
    assert (subject.labels, subject.strangers) == (("bad", "good", "oos"), [])
    assert subject.dev_texts == ["x", "weather", "y"]


def test_weights_stay_with_their_examples_and_must_be_above_zero() -> None:
    weights = np.arange(1, 61, dtype=np.float32)
    lesson = Lesson(TONE, make_examples(60), "tone", weights=weights)
    (tone,) = subjects_of([lesson], seed=7)
    weight_of = dict(zip((one.text for one in lesson.examples), weights, strict=True))
    assert tone.weights is not None
    assert tone.weights.tolist() == [weight_of[text] for text in tone.texts]
    with pytest.raises(BadDataset, match="their variants would have none"):
        with_variants(tone, AugmentSettings(), 7)
    for wrong in (weights[:-1], weights - 1, weights * np.inf, weights * np.nan):
        with pytest.raises(BadDataset, match="a number above 0 for each of 60 examples"):
            subjects_of([replace(lesson, weights=wrong)], seed=7)


def test_a_teacher_may_say_nothing_of_what_has_a_label() -> None:
    soft = np.full((60, 2), 0.5, np.float32)
    soft[7] = 0.0
    examples = make_examples(60)
    (tone,) = subjects_of([Lesson(TONE, examples, "tone", examples, soft)], seed=7)
    assert tone.soft_targets is not None
    assert tone.soft_targets[7].tolist() == [0.0, 0.0]
    examples[7] = Example("nobody speaks of it", "")
    with pytest.raises(BadDataset, match="each row adds up to 1"):
        subjects_of([Lesson(TONE, examples, "tone", make_examples(10), soft)], seed=7)


def test_names_that_say_something_are_texts_of_their_labels() -> None:
    labels = ("L1", "cardArrival", "lost_or-stolen card", "oos", "\u6c47\u6b3e")
    examples = [Example(f"{label} {number}", label) for label in labels for number in range(4)]
    weights = np.linspace(1, 3, len(examples), dtype=np.float32)
    soft = np.full((len(examples), 5), 0.2, np.float32)
    (subject,) = subjects_of([Lesson(TONE, examples, "tone", examples[:5], soft, weights)], seed=7)
    named = with_names(subject)
    assert named.examples[len(examples) :] == [
        Example("card arrival", "cardArrival"),
        Example("lost or stolen card", "lost_or-stolen card"),
        Example("\u6c47\u6b3e", "\u6c47\u6b3e"),
    ]
    assert [named.labels[target] for target in named.targets[len(examples) :]] == [labels[1], labels[2], labels[4]]
    assert named.soft_targets is not None
    assert named.soft_targets[len(examples) :].sum() == 0  # the teacher has not been asked
    assert named.weights is not None
    assert named.weights[len(examples) :].tolist() == pytest.approx([2.0] * 3)
    assert named.dev_examples == subject.dev_examples


def test_a_labels_name_as_words() -> None:
    assert words_of("Refund_not_showing_up") == "refund not showing up"
    assert words_of("ATM-support") == "atm support"
