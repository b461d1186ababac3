from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.datasets import Example
from models.learning.curating import curate
from models.learning.curation import QUARANTINE, REASONS, Curation, CurationSettings
from models.learning.judging import Vectors
from models.learning.opinions import Opinion

LABELS = ("ham", "scam", "spam")
WORDS = {
    "ham": "dinner tonight with mother maybe later honey sleep train home lunch sunday".split(),
    "scam": "parcel customs suspended verify password refund locked urgent identity bank".split(),
    "spam": "winner prize ringtone subscribe discount offer voucher exclusive download".split(),
}
DAY_S = 86_400.0


def vectors(texts: Sequence[str]) -> Vectors:
    """How many words of each kind a text has, and a little of which ones."""
    every = [word for label in LABELS for word in WORDS[label]]
    rows = [[text.casefold().split().count(word) for word in every] for text in texts]
    return np.array(rows, np.float32).reshape(-1, len(every)) + 0.01


def said(label: str, chooser: random.Random) -> str:
    words = [*chooser.choices(WORDS[label], k=7), str(chooser.randrange(10**6)), chooser.choice(WORDS["ham"])]
    return " ".join(chooser.sample(words, len(words)))


def opinion(number: int, text: str, label: str, annotator: str) -> Opinion:
    time_s = 1e9 + number * 600.0
    return Opinion("risk", f"sms/0/{number}", text, label, annotator, time_s, time_s, ("sms", "chat")[number % 2])


class World:
    """What a model has learned, and 240 texts labelled by five honest annotators and a hostile one, 5% by mistake."""

    def __init__(self, seed: int) -> None:
        chooser = random.Random(seed)
        self.train = [Example(said(label, chooser), label) for label in LABELS for _ in range(40)]
        self.opinions: list[Opinion] = []
        self.truth: dict[str, str] = {}
        self.mistaken: set[str] = set()
        self.hostile: set[str] = set()
        for number in range(240):
            label = LABELS[number % 3]
            text, annotator = said(label, chooser), f"honest{number % 5}" if number % 7 else "hostile"
            others = [other for other in LABELS if other != label]
            given = label
            if annotator == "hostile":
                given = "ham" if label == "scam" else label
                self.hostile |= {f"sms/0/{number}"} if given != label else set()
            elif chooser.random() < 0.05:
                given = chooser.choice(others)
                self.mistaken.add(f"sms/0/{number}")
            self.truth[f"sms/0/{number}"] = label
            self.opinions.append(opinion(number, text, given, annotator))
            if number % 10 == 1:
                self.opinions.append(opinion(number, text, label, f"honest{(number + 1) % 5}"))


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=1)


@pytest.fixture(scope="module")
def curation(world: World) -> Curation:
    return curate(world.opinions, world.train, [], vectors)


def test_a_hostile_annotator_and_mistakes_are_caught_and_the_honest_kept(world: World, curation: Curation) -> None:
    blamed = {name for name, grade in curation.annotators.items() if grade.quarantined}
    assert blamed == {"hostile"}
    assert "'scam'" in str(curation.annotators["hostile"].quarantined)
    wrong = {row.key for row in curation.kept if row.label != world.truth[row.key]}
    assert not wrong & world.hostile
    assert len(wrong & world.mistaken) <= 0.1 * len(world.mistaken)
    honest = [one.key for one in world.opinions if one.annotator != "hostile" and one.key not in world.mistaken]
    kept = {row.key for row in curation.kept}
    assert len(set(honest) - kept) <= 0.02 * len(set(honest))
    weights = {name: grade.weight for name, grade in curation.annotators.items()}
    assert min(weights, key=lambda name: weights[name]) == "hostile"


def test_every_text_is_kept_or_set_aside_once(world: World, curation: Curation) -> None:
    ended = [row.key for row in curation.kept] + [one.key for one in curation.set_aside]
    assert sorted(ended) == sorted({one.key for one in world.opinions})
    assert all(0 < row.weight <= 1 and row.annotators for row in curation.kept)
    assert [row.event_time_s for row in curation.kept] == sorted(row.event_time_s for row in curation.kept)
    assert all(one.reason in REASONS and one.quarantined == (one.reason in QUARANTINE) for one in curation.set_aside)


def test_two_who_agree_are_surer_than_one(curation: Curation) -> None:
    one, two = ([row.weight for row in curation.kept if len(row.annotators) == count] for count in (1, 2))
    assert len(two) > 15 and np.mean(two) > np.mean(one)


def test_the_order_of_opinions_means_nothing_and_a_person_lets_a_text_out_by_labelling_it(
    world: World, curation: Curation
) -> None:
    waiting = next(one for one in curation.set_aside if one.reason == "annotator")
    text = next(one.text for one in world.opinions if one.key == waiting.key)
    mine = opinion(int(waiting.key.rpartition("/")[2]), text, world.truth[waiting.key], "honest1")
    shuffled = list(world.opinions)
    random.Random(3).shuffle(shuffled)
    assert curate(shuffled, world.train, [], vectors) == curation
    [row] = [row for row in curate([*shuffled, mine], world.train, [], vectors).kept if row.key == waiting.key]
    assert (row.label, row.annotators) == (world.truth[waiting.key], ("honest1",))


def test_a_trusted_annotator_is_heard(world: World) -> None:
    trusting = curate(world.opinions, world.train, [], vectors, CurationSettings(trusted=frozenset({"hostile"})))
    assert not [one for one in trusting.set_aside if one.reason == "annotator"]


def test_a_new_label_is_not_taken_for_a_lie(world: World) -> None:
    """One annotator brings an intent that nobody had: neither they nor it are suspected."""
    refund = [
        opinion(1000 + n, f"money back please {n * 7919} {said('ham', random.Random(n))}", "refund", "honest0")
        for n in range(8)
    ]
    found = curate([*world.opinions, *refund], world.train, [], vectors)
    assert sum(row.label == "refund" for row in found.kept) == 8
    assert found.annotators["honest0"].quarantined is None


def few(
    *opinions: Opinion, train: Sequence[Example] = (), held_out: Sequence[Example] = (), **knobs: object
) -> dict[str, str]:
    """What becomes of a few texts: their label, or why they are set aside."""
    found = curate(opinions, train, held_out, vectors, CurationSettings.model_validate(knobs))
    return {row.key: row.label for row in found.kept} | {one.key: one.reason for one in found.set_aside}


PARCEL = "your parcel is held at the depot pay the customs fee now"


def test_one_text_under_several_keys_is_one_text() -> None:
    its = few(opinion(1, PARCEL, "scam", "ann"), opinion(2, PARCEL.upper(), "scam", "ben"))
    assert its == {"sms/0/1": "scam", "sms/0/2": "duplicate"}


def test_an_annotator_says_one_thing_of_one_text_the_latest() -> None:
    assert few(opinion(1, PARCEL, "ham", "ann"), opinion(2, PARCEL, "scam", "ann"))["sms/0/1"] == "scam"


def test_who_disagrees_waits_until_a_third_decides() -> None:
    ann, ben, cem = (opinion(1, PARCEL, label, name) for label, name in (("ham", "a"), ("scam", "b"), ("scam", "c")))
    assert few(ann, ben) == {"sms/0/1": "conflict"}
    assert few(ann, ben, cem) == {"sms/0/1": "scam"}


def test_near_copies_of_each_other_of_the_training_data_and_of_the_hold_out() -> None:
    near, other = PARCEL + "!", "come home for dinner tonight with your mother"
    assert few(opinion(1, PARCEL, "scam", "ann"), opinion(2, near, "scam", "ben")) == {
        "sms/0/1": "scam",
        "sms/0/2": "near-duplicate",
    }
    assert few(opinion(1, PARCEL, "scam", "ann"), opinion(2, near, "ham", "ben"))["sms/0/2"] == "ham"
    train = [Example(PARCEL, "scam"), Example(other, "ham")]
    assert few(opinion(1, near, "scam", "ann"), train=train) == {"sms/0/1": "known"}
    assert few(opinion(1, PARCEL.title(), "ham", "ann"), train=train) == {"sms/0/1": "contradiction"}
    assert few(opinion(1, near, "ham", "ann"), held_out=train) == {"sms/0/1": "leak"}


def test_a_quota_keeps_the_newest() -> None:
    texts = [said("scam", random.Random(number)) for number in range(6)]
    its = few(*(opinion(number, text, "scam", f"a{number}") for number, text in enumerate(texts)), most_of_label=4)
    assert [key for key, end in sorted(its.items()) if end == "quota"] == ["sms/0/0", "sms/0/1"]


def test_a_burst_waits_and_another_opinion_on_it_counts() -> None:
    texts = [said("scam", random.Random(number)) for number in range(6)]
    hurried = [replace(opinion(n, text, "ham", "eve"), labelled_at_s=1e9 + n) for n, text in enumerate(texts)]
    its = few(*hurried, opinion(0, texts[0], "scam", "ann"), burst_annotator=5)
    assert its == {"sms/0/0": "scam"} | {f"sms/0/{n}": "burst" for n in range(1, 6)}


def test_opinions_of_two_tasks_are_refused_and_none_are_nothing() -> None:
    with pytest.raises(ValueError, match="opinions of several tasks, risk, tone"):
        curate([opinion(1, "a", "x", "ann"), replace(opinion(2, "b", "y", "ann"), task="tone")], [], [], vectors)
    assert curate([], [], [], vectors) == Curation((), (), {})


@settings(deadline=None, max_examples=8)
@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from(LABELS), st.sampled_from(["ann", "ben", "eve"])), max_size=25
    ),
    st.integers(0, 30),
)
def test_whatever_is_said_each_key_has_one_end_and_no_quota_is_broken(
    rows: list[tuple[int, str, str]], trained: int
) -> None:
    opinions = [
        replace(
            opinion(place, said(LABELS[text % 3], random.Random(text)), label, name), key=f"sms/0/{text}-{place % 2}"
        )
        for place, (text, label, name) in enumerate(rows)
    ]
    train = [Example(said(LABELS[n % 3], random.Random(100 + n)), LABELS[n % 3]) for n in range(trained)]
    knobs = CurationSettings(most_of_label=4, free_texts=2, burst_annotator=6)
    found = curate(opinions, train, train[:2], vectors, knobs)
    ended = [row.key for row in found.kept] + [one.key for one in found.set_aside]
    assert sorted(ended) == sorted({one.key for one in opinions})
    labels = Counter(row.label for row in found.kept)
    assert max(labels.values(), default=0) <= 4
    for label, count in labels.items():
        for name in found.annotators:
            part = sum(1 / len(row.annotators) for row in found.kept if row.label == label and name in row.annotators)
            taught = sum(example.label == label for example in train)
            assert part <= max(2, 0.2 * (count + taught)) + 1e-6
