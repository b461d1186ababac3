"""Scoring: one outcome for every text, in order, whatever arrives together and whatever breaks."""

from __future__ import annotations

import asyncio
import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.tasks import LabelPolicy
from models.windows import Rule, merge
from streams import metrics
from streams.scoring import ModelBroken, Outcome, Scorer, Scores, ScoringFailed
from tests.streams.fakes import WAIT_S, FakeModel, loaded, task_of
from tests.streams.serving import answers, at_work, bounds, outcomes_of, soon


def counted(name: str, task: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"streamgauge_{name}", {"task": task}) or 0.0


def scores_of(outcome: Outcome) -> tuple[Scores, ...]:
    assert not isinstance(outcome, ScoringFailed), outcome
    return outcome[1]


async def test_sources_that_submit_at_once_each_get_their_own_answers_in_order() -> None:
    model = FakeModel()
    sources = [[f"{source}{'x' * (7 * place % 11)}" for place in range(23)] for source in ("news", "chat", "payment")]
    scorer = Scorer(loaded(model), bounds(8, 60))
    async with at_work(scorer, slots=2):
        slices = [(texts[start : start + 5], lane) for start in range(0, 23, 5) for lane, texts in enumerate(sources)]
        found = await asyncio.gather(*(outcomes_of(scorer, *one) for one in slices))
    for (texts, _), outcomes in zip(slices, found, strict=True):
        assert answers(model, outcomes) == [model.label_of(text) for text in texts]
    assert sorted(text for batch in model.batches for text in batch) == sorted(itertools.chain(*sources))


async def test_every_batch_keeps_within_the_limits() -> None:
    model = FakeModel()
    texts = ["x" * (1 + 5 * place % 13) for place in range(100)] + ["y" * 90]
    scorer = Scorer(loaded(model), bounds(max_events=8, tokens=40))
    async with at_work(scorer):
        assert len(await outcomes_of(scorer, texts)) == 101
    for batch in model.batches:
        assert len(batch) <= 8
        assert len(batch) == 1 or max(map(len, batch)) * len(batch) <= 40
    assert sorted(text for batch in model.batches for text in batch) == sorted(texts)


async def test_a_batch_of_several_sources_goes_through_the_model_once() -> None:
    gate = threading.Semaphore(0)
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model), bounds())
    async with at_work(scorer):
        first = await scorer.submit(["holds the model"])
        await model.running(1)
        waiting = [await scorer.submit([f"{name} one", f"{name} two"]) for name in ("news", "chat", "risk")]
        gate.release(2)
        await asyncio.gather(*map(soon, (first, *waiting)))
    one = [f"{name} {which}" for name in ("news", "chat", "risk") for which in ("one", "two")]
    assert model.batches == [["holds the model"], one]


async def test_no_text_is_answered_at_once_with_nothing() -> None:
    model = FakeModel()
    scorer = Scorer(loaded(model), bounds())
    async with at_work(scorer):
        future = await scorer.submit([])
        assert future.done()
        assert future.result() == []
    assert model.batches == []


@pytest.mark.parametrize(
    ("probability", "scores"),
    [
        (1 / 3, (0, [0.333333] * 3)),  # the first of equals: bad is not above the others
        (0.7, (2, [0.15, 0.15, 0.7])),  # in float32, as the model computes, it is less
    ],
)
async def test_scores_are_rounded_before_anything_is_judged_by_them(probability: float, scores: Scores) -> None:
    scorer = Scorer(loaded(FakeModel(probability=probability)), bounds())
    async with at_work(scorer):
        (outcome,) = await outcomes_of(scorer, ["bad"])
    assert scores_of(outcome) == (scores,)


# ---- several tasks of one model


async def test_two_tasks_of_one_model_cost_one_run() -> None:
    model = FakeModel(heads={"risk": ("calm", "odd", "bad"), "tone": ("up", "down")})
    one = loaded(model)
    scorer = Scorer(one, bounds())
    texts = ["bad and up", "calm and up", "odd and down", "neither"]
    async with at_work(scorer):
        outcomes = await outcomes_of(scorer, texts)
    assert sum(map(len, model.batches)) == 4
    for task in ("risk", "tone"):
        assert answers(model, outcomes, task) == [model.label_of(text, task) for text in texts]
    assert all(outcome[0] is one for outcome in outcomes if not isinstance(outcome, ScoringFailed))
    assert scorer.name == "risk+tone"
    assert scorer.serves(["tone"]) and scorer.serves(["risk", "other"]) and not scorer.serves(["other"])


async def test_a_task_that_nobody_asks_for_is_left_out() -> None:
    model = FakeModel(heads={"risk": ("calm", "bad"), "tone": ("up", "down")})
    scorer = Scorer(loaded(model, task_of("tone")), bounds())
    async with at_work(scorer):
        (outcome,) = await outcomes_of(scorer, ["down, bad"])
    (scores,) = scores_of(outcome)
    assert scores[0] == 1
    assert not scorer.serves(["risk"])


# ---- long texts

LONG = "calm calm " + "bad fall! " + "so be it. " + "odd"  # windows of ten: 0, 2, by length, and a short one
ALERTING = {"bad": LabelPolicy(alert_above=0.5)}


@pytest.mark.parametrize("rule", ["mean", "max"])
async def test_windows_of_a_long_text_are_merged_by_the_rule_of_the_task(rule: Rule) -> None:
    model = FakeModel(max_tokens=10)
    scorer = Scorer(loaded(model, task_of("risk", ALERTING, rule=rule)), bounds())
    async with at_work(scorer):
        short, long = await outcomes_of(scorer, ["bad", LONG])
    windows = [LONG[start : start + 10] for start in range(0, len(LONG), 10)]
    assert sorted(text for batch in model.batches for text in batch) == sorted([*windows, "bad"])
    rows = np.array(model.run([list(map(ord, window)) for window in windows])["risk"])
    best, found = scores_of(long)[0]
    assert found == pytest.approx(merge(rows, list(map(len, windows)), rule, [2]).tolist(), abs=2e-6)
    assert best == int(np.argmax(found))
    assert (best == 2) == (rule == "max")
    assert scores_of(short)[0][0] == 2


async def test_each_task_of_a_model_merges_windows_by_its_own_rule() -> None:
    model = FakeModel(heads={"risk": ("calm", "odd", "bad"), "tone": ("calm", "odd", "bad")}, max_tokens=10)
    tasks = task_of("risk", ALERTING, rule="max"), task_of("tone", rule="mean")
    scorer = Scorer(loaded(model, *tasks), bounds())
    async with at_work(scorer):
        (outcome,) = await outcomes_of(scorer, ["calm calm " * 3 + "bad fall! "])
    risk, tone = scores_of(outcome)
    assert (risk[0], tone[0]) == (2, 0)


async def test_a_window_that_fails_fails_its_text_and_no_other() -> None:
    model = FakeModel(poison=["poison"], max_tokens=10)
    scorer = Scorer(loaded(model), bounds())
    texts = ["fine", "x" * 20 + "poison" + "x" * 25, "calm calm " * 3]
    async with at_work(scorer):
        outcomes = await outcomes_of(scorer, texts)
    assert answers(model, outcomes) == [model.label_of("fine"), "failed", "calm"]


async def test_long_texts_and_cut_ones_are_counted() -> None:
    task = "cutting"
    model = FakeModel(heads={task: ("calm", "bad")}, max_tokens=10, max_windows=3)
    scorer = Scorer(loaded(model), bounds())
    before = [counted(name, task) for name in ("long_texts_total", "windows_total", "texts_cut_total")]
    async with at_work(scorer):
        await outcomes_of(scorer, ["short", "x" * 10, "x" * 11, "x" * 30, "x" * 31, "x" * 500])
    after = [counted(name, task) for name in ("long_texts_total", "windows_total", "texts_cut_total")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [4, 2 + 3 + 3 + 3, 2]


# ---- failures


@given(count=st.integers(1, 40), data=st.data())
@settings(max_examples=60, deadline=None)
def test_poison_is_found_alone_and_the_rest_is_scored(count: int, data: st.DataObject) -> None:
    poisoned = data.draw(st.sets(st.integers(0, count - 1)))
    texts = [f"{place:02} {'poison' if place in poisoned else 'fine..'}" for place in range(count)]
    model = FakeModel(poison=["poison"])

    async def score() -> list[Outcome]:
        scorer = Scorer(loaded(model), bounds())
        async with at_work(scorer):
            return await outcomes_of(scorer, texts)

    outcomes = asyncio.run(score())
    expected = ["failed" if place in poisoned else model.label_of(text) for place, text in enumerate(texts)]
    assert answers(model, outcomes) == expected
    assert len(model.batches) <= most_runs(count, len(poisoned))


def most_runs(count: int, poisoned: int) -> int:
    """With k poisoned of n: both halves of each of at most k failing batches a level, of which there are log2 n; and
    for each poisoned text one run of a harmless text and one more try. With all poisoned that is 4n - 1."""
    levels = (count - 1).bit_length()
    return min(2 * count - 1, 1 + 2 * poisoned * levels) + 2 * poisoned


@pytest.mark.parametrize(("count", "poisoned"), [(1024, 1), (1024, 20), (1000, 3), (64, 64), (1, 1), (257, 0)])
async def test_the_extra_work_for_poison_is_bounded(count: int, poisoned: int) -> None:
    """In one batch as large as the configuration allows: 20 poisoned texts of 1,024 cost at most 441 small runs."""
    places = {count * number // poisoned for number in range(poisoned)}
    texts = ["poison" if place in places else "fine.." for place in range(count)]
    model = FakeModel(poison=["poison"])
    scorer = Scorer(loaded(model), bounds(max_events=1024))
    async with at_work(scorer):
        outcomes = await outcomes_of(scorer, texts)
    assert answers(model, outcomes).count("failed") == poisoned
    assert len(model.batches[0]) == count, "not one batch"
    assert len(model.batches) <= most_runs(count, poisoned)
    scored = sum(map(len, model.batches))
    assert scored <= count * (1 + (count - 1).bit_length()) + 2 * poisoned, "a level scores each text once"


async def test_what_failed_says_how() -> None:
    scorer = Scorer(loaded(FakeModel(poison=["poison"])), bounds())
    async with at_work(scorer):
        (outcome,) = await outcomes_of(scorer, ["poison"])
    assert outcome == ScoringFailed("risk", "ValueError: a shape the model cannot take", 2, "fake-1")


async def test_a_passing_failure_costs_no_text() -> None:
    model, texts = FakeModel(fails_on=[1]), ["aaa", "bbb", "bad", "odd"]
    scorer = Scorer(loaded(model), bounds())
    async with at_work(scorer):
        outcomes = await outcomes_of(scorer, texts)
    assert answers(model, outcomes) == [model.label_of(text) for text in texts]


@pytest.mark.parametrize("count", [1, 5])
async def test_a_model_that_fails_on_everything_ends_the_loop_and_answers_nothing(count: int) -> None:
    scorer = Scorer(loaded(FakeModel(broken=True)), bounds())
    async with at_work(scorer) as loop:
        future = await scorer.submit([f"text {place}" for place in range(count)])
        with pytest.raises(ModelBroken, match="fake-1 fails on a harmless text too"):
            await asyncio.wait_for(loop, WAIT_S)
        assert not future.done()  # nothing may be made a dead letter, nothing committed


async def test_a_text_that_the_tokeniser_cannot_read_fails_alone() -> None:
    model = FakeModel(cannot_encode=["unreadable"])
    scorer = Scorer(loaded(model), bounds())
    async with at_work(scorer):
        outcomes = await outcomes_of(scorer, ["fine", "unreadable", "fine too"])
        assert answers(model, outcomes) == [model.label_of("fine"), "failed", model.label_of("fine too")]
        assert answers(model, await outcomes_of(scorer, ["unreadable"])) == ["failed"]


async def test_scores_that_are_no_numbers_are_a_failure_of_the_text() -> None:
    """They cannot be published as JSON, and would be read as some label's score."""
    model = FakeModel(senseless=["odd"])
    scorer = Scorer(loaded(model), bounds())
    async with at_work(scorer):
        outcomes = await outcomes_of(scorer, ["bad", "odd", "bad"])
    assert answers(model, outcomes) == ["bad", "failed", "bad"]


async def test_a_model_whose_scores_are_never_numbers_is_broken() -> None:
    """Or a damaged release would turn a whole stream into dead letters."""
    scorer = Scorer(loaded(FakeModel(probability=float("nan"))), bounds())
    async with at_work(scorer) as loop:
        future = await scorer.submit(["text", "another"])
        with pytest.raises(ModelBroken, match="not finite"):
            await asyncio.wait_for(loop, WAIT_S)
        assert not future.done()
