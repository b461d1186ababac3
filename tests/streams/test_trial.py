"""A batch that fails: a text, the memory, or the model itself is to blame."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.trial import HARMLESS, Ill, Poison, Ran, Runner
from tests.streams.fakes import Clock, FakeModel


def run(model: FakeModel, texts: Sequence[str], clock: Clock | None = None) -> Ran:
    return Runner(model, list(model.heads), clock or Clock()).run([list(map(ord, text)) for text in texts])


def said(model: FakeModel, ran: Ran) -> list[str]:
    labels = model.heads["risk"].labels
    return ["poison" if isinstance(row, Poison) else labels[row[0][0]] for row in ran.rows]


def test_an_ill_model_is_found_out_in_two_runs_whatever_the_batch() -> None:
    model = FakeModel(broken=True)
    with pytest.raises(Ill, match="fails on a harmless text too: RuntimeError: the device is gone"):
        run(model, ["text"] * 64)
    assert [len(batch) for batch in model.batches] == [64, 1]
    assert model.batches[1] == [HARMLESS]


def test_scores_that_are_never_numbers_are_an_illness() -> None:
    with pytest.raises(Ill, match="not finite"):
        run(FakeModel(probability=float("nan")), ["one", "two"])


def test_what_does_not_fit_is_halved_until_it_does() -> None:
    model, texts = FakeModel(memory_tokens=40), [f"text {place:05}" for place in range(16)]
    ran = run(model, texts)
    assert said(model, ran) == [model.label_of(text) for text in texts]
    assert ran.too_many_tokens == 80  # eight texts of ten; the least that did not fit
    assert ran.failed == 1 + 2
    assert all(batch != [HARMLESS] for batch in model.batches)


def test_one_text_that_does_not_fit_is_no_poison() -> None:
    """Another way to run the model may have the room."""
    with pytest.raises(Ill, match="out of memory on one text of 30 tokens"):
        run(FakeModel(memory_tokens=20), ["short", "x" * 30])


def test_poison_beside_a_shortage_of_memory_is_found_all_the_same() -> None:
    model = FakeModel(memory_tokens=40, poison=["poison"])
    texts = ["a fine one", "poison one", "fine again", "and fine", "the rest"]
    ran = run(model, texts)
    assert said(model, ran) == [model.label_of(texts[0]), "poison", *map(model.label_of, texts[2:])]


def test_a_model_that_failed_where_it_should_not_needs_more_to_blame_a_text() -> None:
    model, clock = FakeModel(fails_on=[1], poison=["poison"]), Clock()
    runner = Runner(model, ["risk"], clock)
    poison = [list(map(ord, "poison"))]
    runner.run([list(map(ord, "fine")), list(map(ord, "fine too"))])  # a passing failure
    before = len(model.batches)
    assert isinstance(runner.run(poison).rows[0], Poison)
    when_flaky = len(model.batches) - before
    clock.sleep(3600)
    before = len(model.batches)
    assert isinstance(runner.run(poison).rows[0], Poison)
    assert 2 <= len(model.batches) - before < when_flaky


@given(st.integers(1, 30), st.data())
@settings(max_examples=200, deadline=None)
def test_nothing_but_poison_is_ever_blamed(count: int, data: st.DataObject) -> None:
    """An illness that begins with any run and ends with any other."""
    poisoned = data.draw(st.sets(st.integers(0, count - 1)))
    first, runs = data.draw(st.tuples(st.integers(1, 60), st.integers(0, 60)))
    model = FakeModel(poison=["poison"], fails_on=range(first, first + runs))
    texts = [f"{place:02} {'poison' if place in poisoned else 'fine..'}" for place in range(count)]
    try:
        ran = run(model, texts)
    except Ill:
        return
    assert said(model, ran) == [
        "poison" if place in poisoned else model.label_of(text) for place, text in enumerate(texts)
    ]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7])
def test_a_flaky_model_seldom_has_a_text_blamed(share: float) -> None:
    """Chance alone can make a text fail every time and a harmless one pass every time; here in 400 batches of 8."""
    rng, blamed = random.Random(7), 0
    clock = Clock()

    def trouble(texts: Sequence[str]) -> None:
        clock.sleep(0.01)
        if rng.random() < share:
            raise RuntimeError("a passing fault")

    runner = Runner(FakeModel(trouble=trouble), ["risk"], clock)
    for _ in range(400):
        try:
            blamed += sum(isinstance(row, Poison) for row in runner.run([list(map(ord, "a fine text"))] * 8).rows)
        except Ill:
            continue
    assert blamed == 0
