"""Scoring: one outcome for every text, in order, whatever arrives together and whatever breaks."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.batching import Limits
from streams.scoring import Device, ModelBroken, Outcome, Scored, Scorer, ScoringFailed
from tests.streams.fakes import FakeClassifier, serve

WIDE = Limits(max_events=64, max_tokens=100_000, max_wait_s=0.005)


@asynccontextmanager
async def scoring(
    classifier: FakeClassifier, limits: Limits = WIDE
) -> AsyncIterator[tuple[Scorer, asyncio.Task[None]]]:
    """A scorer at work, and its loop; what the loop raises is the test's to look at."""
    device = Device()
    scorer = Scorer(serve(classifier), limits, device)
    loop = asyncio.create_task(scorer.run())
    try:
        yield scorer, loop
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError, ModelBroken):
            await loop
        device.close()


async def outcomes_of(scorer: Scorer, texts: Sequence[str]) -> list[Outcome]:
    return await asyncio.wait_for(await scorer.submit(texts), 10)


def answers(classifier: FakeClassifier, outcomes: Sequence[Outcome]) -> list[str]:
    """The label of each outcome, or `failed`."""
    return [
        classifier.labels[int(one.probabilities.argmax())] if isinstance(one, Scored) else "failed" for one in outcomes
    ]


async def test_sources_that_submit_at_once_each_get_their_own_answers_in_order() -> None:
    classifier = FakeClassifier()
    sources = [[f"{source}{'x' * (7 * place % 11)}" for place in range(23)] for source in ("news", "chat", "payment")]
    async with scoring(classifier, Limits(8, 60, 0.005)) as (scorer, _):
        slices = [texts[start : start + 5] for start in range(0, 23, 5) for texts in sources]
        found = await asyncio.gather(*(outcomes_of(scorer, texts) for texts in slices))
    for texts, outcomes in zip(slices, found, strict=True):
        assert answers(classifier, outcomes) == [classifier.label_of(text) for text in texts]
    assert sorted(text for batch in classifier.batches for text in batch) == sorted(itertools.chain(*sources))


async def test_every_batch_keeps_within_the_limits() -> None:
    classifier = FakeClassifier()
    limits = Limits(max_events=8, max_tokens=40, max_wait_s=0.001)
    texts = ["x" * (1 + 5 * place % 13) for place in range(100)] + ["y" * 90]
    async with scoring(classifier, limits) as (scorer, _):
        assert len(await outcomes_of(scorer, texts)) == 101
    for batch in classifier.batches:
        assert len(batch) <= 8
        assert len(batch) == 1 or max(map(len, batch)) * len(batch) <= 40
    assert [text for batch in classifier.batches for text in batch] == texts


async def test_a_batch_of_several_sources_goes_through_the_model_once() -> None:
    gate = threading.Event()
    classifier = FakeClassifier(gate=gate)
    async with scoring(classifier) as (scorer, _):
        first = await scorer.submit(["holds the model"])
        await asyncio.to_thread(classifier.entered.wait, 10)
        waiting = [await scorer.submit([f"{name} one", f"{name} two"]) for name in ("news", "chat", "payment")]
        gate.set()
        await asyncio.wait_for(asyncio.gather(first, *waiting), 10)
    one = [f"{name} {which}" for name in ("news", "chat", "payment") for which in ("one", "two")]
    assert classifier.batches == [["holds the model"], one]


async def test_no_text_is_answered_at_once_with_nothing() -> None:
    classifier = FakeClassifier()
    async with scoring(classifier) as (scorer, _):
        future = await scorer.submit([])
        assert future.done()
        assert future.result() == []
    assert classifier.batches == []


async def test_the_deadline_is_met_though_nothing_more_arrives() -> None:
    classifier = FakeClassifier()
    async with scoring(classifier, Limits(64, 100_000, max_wait_s=0.05)) as (scorer, _):
        started_s = time.monotonic()
        (outcome,) = await outcomes_of(scorer, ["alone"])
        waited_s = time.monotonic() - started_s
    assert isinstance(outcome, Scored)
    assert 0.04 <= waited_s < 2  # not before its deadline, as more could have come; the upper end is a slow machine's
    assert classifier.batches == [["alone"]]


@given(count=st.integers(1, 40), data=st.data())
@settings(max_examples=60, deadline=None)
def test_poison_is_found_alone_and_the_rest_is_scored(count: int, data: st.DataObject) -> None:
    poisoned = data.draw(st.sets(st.integers(0, count - 1)))
    texts = [f"{place} {'poison' if place in poisoned else 'fine'}{'.' * (place % 4)}" for place in range(count)]
    classifier = FakeClassifier(poison=["poison"])

    async def score() -> list[Outcome]:
        async with scoring(classifier, Limits(64, 100_000, 0.0)) as (scorer, _):
            return await outcomes_of(scorer, texts)

    outcomes = asyncio.run(score())
    expected = ["failed" if place in poisoned else classifier.label_of(text) for place, text in enumerate(texts)]
    assert answers(classifier, outcomes) == expected
    probes = len(poisoned)
    assert len(classifier.batches) <= 2 * count - 1 + probes
    assert all(isinstance(outcomes[place], ScoringFailed) for place in poisoned)


async def test_what_failed_says_how() -> None:
    async with scoring(FakeClassifier(poison=["poison"])) as (scorer, _):
        (outcome,) = await outcomes_of(scorer, ["poison"])
    assert outcome == ScoringFailed("ValueError: a shape the model cannot take")


async def test_a_passing_failure_costs_no_text() -> None:
    classifier = FakeClassifier(fails_on=[1])
    async with scoring(classifier) as (scorer, _):
        outcomes = await outcomes_of(scorer, ["a", "bb", "ccc", "dddd"])
    assert answers(classifier, outcomes) == [classifier.label_of(text) for text in ("a", "bb", "ccc", "dddd")]


@pytest.mark.parametrize("count", [1, 5])
async def test_a_model_that_fails_on_everything_ends_the_loop_and_answers_nothing(count: int) -> None:
    classifier = FakeClassifier(broken=True)
    async with scoring(classifier) as (scorer, loop):
        future = await scorer.submit([f"text {place}" for place in range(count)])
        with pytest.raises(ModelBroken, match="fake-1 fails on a harmless text too"):
            await asyncio.wait_for(loop, 10)
        assert not future.done()  # nothing may be made a dead letter, nothing committed


async def test_a_text_that_the_tokeniser_cannot_read_fails_alone() -> None:
    classifier = FakeClassifier(cannot_encode=["unreadable"])
    async with scoring(classifier) as (scorer, _):
        outcomes = await outcomes_of(scorer, ["fine", "unreadable", "fine too"])
    assert answers(classifier, outcomes) == [classifier.label_of("fine"), "failed", classifier.label_of("fine too")]


async def test_probabilities_that_are_no_numbers_are_a_failure_of_the_model() -> None:
    """They cannot be published as JSON, and would be read as some label's score."""
    classifier = FakeClassifier(probability=float("nan"))
    async with scoring(classifier) as (scorer, loop):
        future = await scorer.submit(["text"])
        ends: set[asyncio.Future[Any]] = {future, loop}
        await asyncio.wait(ends, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert loop.done() or isinstance(future.result()[0], ScoringFailed)
