"""The words an alert rests on: exact, in time, and at nobody else's cost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from models.tasks import LabelPolicy
from streams.decisions import decide
from streams.events import Coordinates, Event, Output, Rejected
from streams.evidence import TOLD, AlertEvidence
from streams.scoring import Scorer
from streams.settings import load_settings
from tests.streams.fakes import WAIT_S, FakeModel, loaded, task_of
from tests.streams.serving import at_work, bounds, soon

SURGE = load_settings(env={}).surge
BAD = {"bad": LabelPolicy(alert_above=0.5, severity="high")}
ALERT = (2, [0.05, 0.05, 0.9])


def scorer_of(model: FakeModel) -> Scorer:
    return Scorer(loaded(model, task_of("risk", BAD)), bounds())


def slice_of(scorer: Scorer, *texts: str) -> tuple[list[Output], list[Event | Rejected]]:
    """A slice whose events all alert: its outputs and verdicts."""
    verdicts: list[Event | Rejected] = [Rejected(Coordinates("news", 0, 0), "intake", "NotJson", "")]
    outputs: list[Output] = []
    for offset, text in enumerate(texts, 1):
        at = Coordinates("news", 0, offset)
        event = Event("news", at, f"e{offset}", "2026-03-01T12:00:00.000Z", 1.7e9, text, "ACME")
        verdicts.append(event)
        outputs += decide(event, [(scorer.loaded.served[0], ALERT)], SURGE, "2026-03-01T12:00:01.000Z")
    return outputs, verdicts


def evidence(outputs: Sequence[Output]) -> list[dict[str, Any]]:
    return [
        output.value["evidence"] for output in outputs if output.name == "alerts" and isinstance(output.value, dict)
    ]


async def test_an_alert_says_which_words_it_rests_on() -> None:
    scorer = scorer_of(FakeModel())
    texts = ("a bad day", "银行bad股", "👍🏽 bad e\u0301 ...")
    outputs, verdicts = slice_of(scorer, *texts)
    async with at_work(scorer):
        found = await AlertEvidence(WAIT_S).added(outputs, verdicts, [scorer])
    assert [one.name for one in found] == [one.name for one in outputs]
    for text, one, before in zip(texts, evidence(found), evidence(outputs), strict=True):
        (word,) = one.pop("words")
        assert (text[word["start"] : word["end"]], word["text"]) == ("bad", "bad")
        assert word["weight"] == pytest.approx(0.85)  # without it another label has the 0.9
        assert one == before
    unchanged = [(ours, theirs) for ours, theirs in zip(found, outputs, strict=True) if ours.name != "alerts"]
    assert unchanged
    assert all(ours is theirs for ours, theirs in unchanged)


async def test_a_long_text_is_explained_within_bounds() -> None:
    model = FakeModel(max_tokens=42)
    scorer = scorer_of(model)
    text = "so it is " * 30 + "bad" + " day by day" * 30
    outputs, verdicts = slice_of(scorer, text)
    async with at_work(scorer):
        (one,) = evidence(await AlertEvidence(WAIT_S).added(outputs, verdicts, [scorer]))
    assert len(one["words"]) <= TOLD
    strongest = one["words"][0]
    assert "bad" in text[strongest["start"] : strongest["end"]] == strongest["text"]
    assert sum(map(len, model.batches)) <= 250


async def test_while_texts_wait_nothing_is_explained() -> None:
    gate = threading.Semaphore(0)
    model = FakeModel(gate=gate)
    scorer = scorer_of(model)
    outputs, verdicts = slice_of(scorer, "a bad day")
    async with at_work(scorer):
        first = await scorer.submit(["one"])
        await model.running(1)
        behind = await scorer.submit(["two"])
        assert not scorer.idle
        found = await AlertEvidence(WAIT_S).added(outputs, verdicts, [scorer])
        assert found == outputs
        gate.release(10)
        await soon(first)
        await soon(behind)
    assert not [text for batch in model.batches for text in batch if "day" in text]


async def test_what_takes_too_long_is_left_out() -> None:
    gate = threading.Semaphore(0)
    scorer = scorer_of(FakeModel(gate=gate))
    outputs, verdicts = slice_of(scorer, "a bad day", "one more bad day")
    async with at_work(scorer):
        started_s = time.monotonic()
        async with asyncio.timeout(WAIT_S):
            found = await AlertEvidence(0.05).added(outputs, verdicts, [scorer])
        assert time.monotonic() - started_s >= 0.05
        assert found == outputs
        gate.release(100)
        assert await soon(await scorer.submit(["then"]))  # the model goes on as before


async def test_a_text_that_breaks_the_model_in_part_is_alerted_all_the_same() -> None:
    scorer = scorer_of(FakeModel(poison=["a  day"]))  # what is left of it without a word
    outputs, verdicts = slice_of(scorer, "a bad day")
    async with at_work(scorer):
        assert await AlertEvidence(WAIT_S).added(outputs, verdicts, [scorer]) == outputs


async def test_a_text_that_cannot_be_explained_is_alerted_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    scorer = scorer_of(FakeModel(cannot_encode=["bad"]))
    outputs, verdicts = slice_of(scorer, "a bad day")
    async with at_work(scorer):
        assert await AlertEvidence(WAIT_S).added(outputs, verdicts, [scorer]) == outputs
    assert "news/0/1/risk/alert/bad: goes without its words: ValueError" in caplog.text


async def test_without_alerts_the_model_is_left_alone() -> None:
    model = FakeModel()
    scorer = scorer_of(model)
    outputs, verdicts = slice_of(scorer, "a bad day")
    others = [output for output in outputs if output.name != "alerts"]
    async with at_work(scorer):
        assert await AlertEvidence(WAIT_S).added(others, verdicts, [scorer]) == others
    assert not model.batches


def test_nothing_is_explained_unless_asked_for() -> None:
    assert load_settings(env={}).models.explain_alerts_ms == 0
