import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.augmentation import SYNONYMS, AugmentSettings, augment, with_other_amounts, with_synonyms
from models.datasets import Example, normalised
from models.errors import BadDataset
from models.lessons import Lesson, subjects_of, with_variants
from models.tasks import Task
from models.train_settings import TrainSettings, settings_of
from models.training import train
from tests.models.tiny import ignore, make_examples

KINDS = ("synonyms", "typos", "casing", "entities", "numbers")
NEWS = [
    Example("Operating profit of Nokia rose to EUR 13.1 mn from EUR 8.7 mn in 2007", "positive"),
    Example("Shares of Tesco fell 5% after a profit warning, and shares of Nokia dropped too", "negative"),
    Example("The company said that Tesco will publish its results on 12 March", "neutral"),
    Example("Barclays announced layoffs, and about 1,200 workers of Tesco fear for their jobs", "negative"),
    Example("the agreement with Nokia and Barclays is expected soon", "positive"),
]


def only(kind: str, copies: int = 3) -> AugmentSettings:
    return AugmentSettings(copies=copies, **{one: float(one == kind) for one in KINDS})


def seeded(seed: int = 1) -> random.Random:
    return random.Random(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_makes_variants_with_their_labels_and_the_same_ones_by_seed(kind: str) -> None:
    made = augment(NEWS, only(kind), seeded())
    assert made == augment(NEWS, only(kind), seeded())
    assert made != augment(NEWS, only(kind), seeded(2))
    texts = [one.text for one in made]
    assert len(set(texts)) == len(texts) and not set(texts) & {one.text for one in NEWS}
    assert {one.label for one in made} <= {one.label for one in NEWS}


def test_nothing_is_made_when_nothing_is_asked_for_or_can_be_changed() -> None:
    assert augment(NEWS, AugmentSettings(synonyms=0, typos=0, entities=0, numbers=0), seeded()) == []
    assert augment([Example("余额 42", "a"), Example("不行", "b")], AugmentSettings(copies=5, casing=1), seeded()) == []


TEXTS = st.lists(st.sampled_from(["how do i", "pay", "$5 million", "Nokia", "EUR 7.50", "in 2007", "ok", "账户", "5%"]))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.builds(Example, TEXTS.map(" ".join).filter(str.strip), st.sampled_from("ab")), max_size=6),
    st.integers(0, 3),
)
def test_variants_are_new_bounded_and_never_contradict(examples: list[Example], seed: int) -> None:
    before = list(examples)
    made = augment(examples, AugmentSettings(copies=2, casing=0.3), seeded(seed))
    assert examples == before
    assert len(made) <= 2 * len(examples)
    assert not {one.text for one in made} & {one.text for one in examples}
    contradictory = {normalised(one.text) for one in examples if Example(one.text, "ab"[one.label == "a"]) in examples}
    labels = {normalised(one.text): one.label for one in examples if normalised(one.text) not in contradictory}
    assert all(labels.get(normalised(one.text), one.label) == one.label for one in made)


def test_synonyms_keep_the_place_the_capitals_and_the_rest() -> None:
    variants = {with_synonyms("How do I reply? The firm's profit FELL.", seeded(seed)) for seed in range(30)}
    assert "How can I reply? The firm's profit FELL." in variants
    assert any(
        "FELL" not in variant and re.search(r"(DROPPED|DECLINED|DECREASED|WENT DOWN)\.$", variant)
        for variant in variants
    )
    assert all(" firm's " in variant or "firm's" in variant for variant in variants)
    assert (
        with_synonyms("nothing of it here: shareholdersmeeting", seeded()) == "nothing of it here: shareholdersmeeting"
    )


def test_the_groups_of_synonyms_are_plain() -> None:
    groups = [
        line.split(", ") for line in SYNONYMS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    assert len(groups) > 100
    for group in groups:
        assert len(group) >= 2 and len(set(group)) == len(group)
        assert all(re.fullmatch(r"[a-z' ]+", phrase) for phrase in group), group
    up, down = {"rose", "rises", "surged", "gains", "beats"}, {"fell", "falls", "plunged", "cuts", "weak", "worsened"}
    assert not [group for group in groups if set(group) & up and set(group) & down]


@settings(deadline=None)
@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=4), st.integers(0, 5))
def test_amounts_keep_their_order_and_their_form(cents: list[int], seed: int) -> None:
    text = " and ".join(f"EUR {value / 100:,.2f} mn" for value in cents)
    changed = with_other_amounts(text, seeded(seed))
    assert re.sub(r"[\d,]+\.\d\d", "N", changed) == re.sub(r"[\d,]+\.\d\d", "N", text)
    new = [float(value.replace(",", "")) for value in re.findall(r"[\d,]+\.\d\d", changed)]
    for one, new_one in zip(cents, new, strict=True):
        for other, new_other in zip(cents, new, strict=True):
            assert (one < other) == (new_one < new_other)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("profit of $5 million, up 25% on 2006", "profit of $N million, up 25% on 2006"),
        ("Rs.500 and ₹1,500.50 on March 31, Q2 2007", "Rs.N and ₹N on March 31, Q2 2007"),
        ("12 December: 3.5 billion pounds at 10:30", "12 December: N billion pounds at 10:30"),
    ],
)
def test_percentages_years_days_and_times_stay(text: str, kept: str) -> None:
    number = r"(?<=[$.₹])[\d,]*\d(?:\.\d+)?|(?<=: )[\d.]+"
    changed = with_other_amounts(text, seeded(3))
    assert changed != text
    assert re.sub(number, "N", changed) == re.sub(number, "N", text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "profit rose to $12 million from 9",  # with what would it be compared?
        "EUR 12,5 mn against EUR 8 mn",  # decimal commas
        "call 08001234567 or 911",
        "5 cards in 3 days, v1.2.3, iOS 14.2",
        "up 5 percent",
    ],
)
def test_a_text_whose_numbers_are_not_understood_is_left_alone(text: str) -> None:
    assert [with_other_amounts(text, seeded(seed)) for seed in range(3)] == [text] * 3


def test_a_name_that_may_tell_the_label_is_not_exchanged() -> None:
    """One seen three times, with one label only; among many labels a rarer one, too."""
    pay = [Example(f"how is Apple Pay with {bank}", "apple_pay") for bank in ("Nokia", "Tesco", "Barclays")]
    banks = ("Nokia", "Tesco", "Barclays", "Lloyds", "Santander")
    other = [Example(f"how do i close my account at {bank}", "close") for bank in banks]
    made = augment([*pay, *other], only("entities"), seeded())
    assert made and all("Apple Pay" in one.text for one in made if one.label == "apple_pay")
    many = [Example("so " * row + f"what about Bank{chr(65 + row)}", f"label {row}") for row in range(12)]
    assert augment(many, only("entities"), seeded()) == []
    assert augment([one._replace(label="ab"[row % 2]) for row, one in enumerate(many)], only("entities"), seeded())


def test_a_name_is_exchanged_for_one_of_its_look_everywhere_in_the_text() -> None:
    texts = ["why does $AAPL fall when $MSFT does", "why does $MSFT rise", "when is $AAPL up, and why is Nokia up"]
    examples = [Example(text, label) for text in texts for label in ("a",)] + [Example("Tesco is up", "b")]
    for one in augment(examples, only("entities", copies=5), seeded()):
        assert re.search(r"\$(AAPL|MSFT)|Nokia|Tesco", one.text)
        assert not re.search(r"\$(Nokia|Tesco)", one.text)


def test_a_subject_learns_from_variants_of_what_it_learns_from_alone() -> None:
    lesson = Lesson(Task(name="tone"), NEWS * 3, "news.jsonl", [Example("Nokia is up", "positive")])
    [subject] = subjects_of([lesson], 7)
    more = with_variants(subject, only("typos"), 7)
    assert more.examples[: len(subject.examples)] == list(subject.examples)
    assert len(more.examples) == len(more.targets) > len(subject.examples)
    assert [more.labels[target] for target in more.targets] == [example.label for example in more.examples]
    assert more.dev_examples == subject.dev_examples
    nothing = with_variants(subject, only("casing").model_copy(update={"casing": 0.0}), 7)
    assert nothing.examples == list(subject.examples)
    with pytest.raises(BadDataset, match="a teacher scored the examples alone"):
        with_variants(replace(subject, soft_targets=np.full((15, 3), 1 / 3, np.float32)), only("typos"), 7)


def test_training_learns_from_variants_when_asked_to(tiny_task: Task) -> None:
    lesson = Lesson(tiny_task, make_examples(40), "tone.jsonl", make_examples(10, start=500))
    plain = TrainSettings(method="head", epochs=2, threads=1)
    varied = plain.model_copy(update={"augment": only("typos")})
    without, once, again = (train([lesson], settings, ignore) for settings in (plain, varied, varied))
    assert torch.equal(once.model.head.weight, again.model.head.weight)
    assert not torch.equal(once.model.head.weight, without.model.head.weight)
    assert once.heads[0].data == without.heads[0].data
    assert settings_of({"augment": {"copies": 2}}, "task.toml").augment == AugmentSettings(copies=2)
