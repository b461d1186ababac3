"""A model that is ill: smaller batches, another way to run it, hold; and back. No text is lost, none is to blame."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import IntegrityError
from streams import metrics
from streams.adaptive import Bounds
from streams.breaker import LONGEST_WAIT_S
from streams.device import ModelBroken, ModelHung
from streams.live import Loaded
from streams.scoring import Outcome, Scorer
from streams.trial import HARMLESS
from tests.streams.fakes import WAIT_S, Clock, FakeModel, loaded
from tests.streams.serving import answers, at_work, bounds, outcomes_of, soon

TICK_S = 0.005
RISK, CHAT, BULK = 0, 1, 2


def scorer_of(
    model: FakeModel, clock: Clock, reference: Callable[[], Loaded] | None = None, limits: Bounds | None = None
) -> Scorer:
    return Scorer(loaded(model, reference=reference), limits or bounds(), clock, jitter=lambda: 0.0)


def numbered(count: int, name: str = "text") -> list[str]:
    return [f"{name}-{number:03}" for number in range(count)]


async def until(true: Callable[[], bool], each_time: Callable[[], object] = lambda: None) -> None:
    """Look again and again: what is waited for happens on other threads."""
    end_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end_s
        each_time()
        await asyncio.sleep(TICK_S)


async def cured(clock: Clock, *futures: asyncio.Future[list[Outcome]]) -> list[list[Outcome]]:
    """The outcomes, as time passes and probe follows probe."""
    await until(lambda: all(one.done() for one in futures), lambda: clock.sleep(LONGEST_WAIT_S))
    return [one.result() for one in futures]


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(f"streamgauge_{name}", {"task": "risk", **labels}) or 0.0


async def test_an_ill_model_is_replaced_by_its_reference_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streams")
    clock, chosen, reference = Clock(), FakeModel(runtime="fast"), FakeModel(runtime="plain", slots=2)
    scorer = scorer_of(chosen, clock, lambda: loaded(reference))
    async with at_work(scorer, clock=clock, tick_s=TICK_S):
        assert answers(chosen, await outcomes_of(scorer, numbered(10))) == list(map(chosen.label_of, numbered(10)))
        chosen.broken = True
        for turn in range(5):  # nobody waits for the clock: the reference is loaded at once
            texts = numbered(20, f"ill-{turn}")
            assert answers(chosen, await outcomes_of(scorer, texts)) == list(map(chosen.label_of, texts))
        assert scorer.ladder.state == "reference"
        assert scorer.ladder.report()["runtime"] == "plain"
        assert "the device is gone" in scorer.ladder.report()["problems"]["chosen"]
        assert value("model_state", state="reference") == 1 and value("model_state", state="chosen") == 0
        clock.sleep(LONGEST_WAIT_S)
        await until(lambda: value("model_probes_total", result="failed") > 0)
        assert scorer.ladder.state == "reference"
        chosen.broken = False
        clock.sleep(LONGEST_WAIT_S)
        await until(lambda: scorer.ladder.state == "chosen")
        before = len(chosen.batches)
        await outcomes_of(scorer, ["well again"])
        assert chosen.batches[before:] == [["well again"]]
    told = [record.getMessage() for record in caplog.records if record.name == "streams.ladder"]
    assert len(told) == 3, told  # once for each change
    assert "the chosen runtime (fast) fails on a harmless text too: RuntimeError: the device is gone" in told[0]
    assert "none is lost" in told[0]
    assert "the reference runtime (plain) passes its probe and serves" in told[1]
    assert "the chosen runtime (fast) passes its probe and serves" in told[2]
    assert all(record.name != "streams.scoring" for record in caplog.records)


async def test_a_reference_that_cannot_be_loaded_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    clock, chosen, file_is_whole = Clock(), FakeModel(), threading.Event()

    def reference() -> Loaded:
        if not file_is_whole.is_set():
            raise IntegrityError("/releases/risk-1/model.onnx: is not the file this release was made with")
        return loaded(FakeModel(runtime="plain"))

    scorer = scorer_of(chosen, clock, reference)
    async with at_work(scorer, clock=clock, tick_s=TICK_S):
        chosen.broken = True
        waiting = await scorer.submit(numbered(5))
        for failures in range(1, 4):
            wanted = value("model_probes_total", result="failed") + 1
            await until(lambda wanted=wanted: value("model_probes_total", result="failed") >= wanted)  # type: ignore[misc]
            assert scorer.ladder.state == "holding" and not waiting.done(), failures
            clock.sleep(LONGEST_WAIT_S)
        file_is_whole.set()
        (outcomes,) = await cured(clock, waiting)
        assert answers(chosen, outcomes) == list(map(chosen.label_of, numbered(5)))
    told = [record.getMessage() for record in caplog.records if "cannot be loaded" in record.getMessage()]
    assert len(told) == 1
    assert "cannot be loaded: IntegrityError: /releases/risk-1/model.onnx" in told[0]


async def test_without_any_way_texts_are_held_and_nothing_else_waits_for_them() -> None:
    clock, ill, sound = Clock(), FakeModel(broken=True), FakeModel(heads={"tone": ("up", "down")})
    one, other = scorer_of(ill, clock), scorer_of(sound, clock)
    async with at_work(one, other, clock=clock, tick_s=TICK_S):
        held = await one.submit(numbered(50), RISK)
        await until(lambda: one.ladder.holding)
        runs = len(ill.batches)
        for turn in range(20):
            assert len(await outcomes_of(other, numbered(5, f"other-{turn}"), BULK)) == 5
        assert (
            len(ill.batches) == runs == 2
        )  # the batch and the harmless text; held texts are not tried again and again
        assert not held.done()
        ill.broken = False
        (outcomes,) = await cured(clock, held)
        assert answers(ill, outcomes) == list(map(ill.label_of, numbered(50)))


async def test_held_texts_keep_their_lanes_and_their_age() -> None:
    gate, clock = threading.Semaphore(0), Clock()
    model = FakeModel(gate=gate, broken=True)
    scorer = scorer_of(model, clock, limits=bounds(max_events=1))
    async with at_work(scorer, clock=clock, tick_s=TICK_S):
        futures = []
        for text in (*numbered(3, "bulk"), *numbered(2, "risk")):
            futures.append(await scorer.submit([text], RISK if "risk" in text else BULK))
            clock.sleep(0.1)
        await model.running(1)
        gate.release(10)
        await until(lambda: scorer.ladder.holding and len(scorer.batcher) == 5)
        model.broken, before = False, len(model.batches)
        gate.release(1000)
        await cured(clock, *futures)
    order = [text for (text,) in model.batches[before:] if text != HARMLESS]
    assert order == [*numbered(2, "risk"), *numbered(3, "bulk")]


async def test_out_of_memory_makes_smaller_batches_and_harms_no_text() -> None:
    clock, model = Clock(), FakeModel(memory_tokens=100)
    scorer = scorer_of(model, clock, limits=Bounds(64, 16, 4096, 0.0, 100.0))
    before = value("out_of_memory_total")
    async with at_work(scorer, clock=clock, tick_s=TICK_S):
        texts = numbered(64)  # 8 tokens each: 512
        assert answers(model, await outcomes_of(scorer, texts)) == list(map(model.label_of, texts))
        refused = value("model_failures_total")
        assert value("out_of_memory_total") == before + 1
        assert scorer.pace.limits.max_tokens == 64
        await outcomes_of(scorer, texts)
        assert value("model_failures_total") == refused  # remembered
        clock.sleep(700)
        await outcomes_of(scorer, texts[:1])
        assert scorer.pace.limits.max_tokens > 4 * 64  # and slowly forgotten
        await outcomes_of(scorer, texts)
        assert scorer.pace.limits.max_tokens < 100
    assert scorer.ladder.state == "chosen"


async def test_a_text_that_no_memory_holds_goes_to_the_reference() -> None:
    clock, chosen, reference = Clock(), FakeModel(memory_tokens=30), FakeModel(runtime="plain")
    scorer = scorer_of(chosen, clock, lambda: loaded(reference))
    async with at_work(scorer, clock=clock, tick_s=TICK_S):
        texts = ["short", "x" * 31, "short too"]
        assert answers(chosen, await outcomes_of(scorer, texts)) == list(map(chosen.label_of, texts))


async def test_poison_is_to_blame_on_the_reference_as_well() -> None:
    clock, reference = Clock(), FakeModel(runtime="plain", poison=["poison"])
    scorer = scorer_of(FakeModel(broken=True), clock, lambda: loaded(reference))
    async with at_work(scorer, clock=clock, tick_s=TICK_S):
        texts = ["fine", "poison", "fine too"]
        assert answers(reference, await outcomes_of(scorer, texts)) == [
            reference.label_of("fine"), "failed", reference.label_of("fine too")
        ]  # fmt: skip


async def test_the_reference_runs_on_as_many_threads_as_it_has_slots() -> None:
    gate, clock = threading.Semaphore(0), Clock()
    reference = FakeModel(runtime="plain", slots=3)
    scorer = scorer_of(FakeModel(broken=True), clock, lambda: loaded(reference), bounds(max_events=1))
    async with at_work(scorer, clock=clock, tick_s=TICK_S):
        await outcomes_of(scorer, ["first"])
        reference._gate = gate
        future = await scorer.submit(numbered(6))
        await reference.running(2 + 3)  # the probe, the first text, and three at once
        gate.release(100)
        await soon(future)
    assert reference.most_at_once == 3


# ---- what ends the process


async def test_held_for_too_long_it_gives_up_and_answers_nothing() -> None:
    clock, model = Clock(), FakeModel(broken=True)
    scorer = scorer_of(model, clock)
    async with at_work(scorer, clock=clock, tick_s=TICK_S, hold_limit_s=900.0) as loop:
        future = await scorer.submit(numbered(5))
        await until(lambda: scorer.ladder.holding)
        clock.sleep(899)
        await asyncio.sleep(5 * TICK_S)
        assert not loop.done()
        clock.sleep(2)
        with pytest.raises(ModelBroken, match=r"risk: nothing could run the model for models\.hold_limit_s = 900"):
            await asyncio.wait_for(asyncio.shield(loop), WAIT_S)
        assert not future.done()  # nothing may be made a dead letter, nothing committed


async def test_a_run_that_does_not_come_back_ends_the_device() -> None:
    gate = threading.Semaphore(0)
    scorer = Scorer(loaded(FakeModel(gate=gate)), bounds())
    async with at_work(scorer, tick_s=0.01, hang_s=0.3) as loop:
        future = await scorer.submit(["text"])
        with pytest.raises(ModelHung, match=r"risk: the chosen runtime \(fake\) hangs: 1 texts for 0 s"):
            await asyncio.wait_for(asyncio.shield(loop), WAIT_S)
        assert not future.done()
        gate.release(10)


async def test_what_is_handed_over_ahead_does_not_hang_while_it_waits_for_its_thread() -> None:
    """Each run takes two thirds of the limit; the batch behind it waits as long again."""
    gate, ticks = threading.Semaphore(0), 0.01
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model), bounds(max_events=1))
    async with at_work(scorer, tick_s=ticks, hang_s=60 * ticks) as loop:
        future = await scorer.submit(numbered(4))
        for run in range(4):
            await model.running(run + 1)
            await asyncio.sleep(40 * ticks)
            gate.release()
        await soon(future)
        assert not loop.done()


# ---- slow


async def test_a_slow_model_is_told_and_risk_goes_first_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """A model a hundred times as slow, under a flood of bulk and chat: a risk text waits for a few batches."""
    clock = Clock()
    model = FakeModel(trouble=lambda texts: clock.sleep(0.1 * len(texts)))
    scorer = scorer_of(model, clock, limits=Bounds(64, 32, 4096, 0.0, 0.2))
    async with at_work(scorer, clock=clock, tick_s=TICK_S):
        flood = [await scorer.submit(numbered(150, name), lane) for name, lane in (("bulk", BULK), ("chat", CHAT))]
        for turn in range(30):
            urgent = await scorer.submit([f"urgent-{turn}"], RISK)
            before = len(model.batches)
            await soon(urgent)
            place = next(place for place, batch in enumerate(model.batches) if f"urgent-{turn}" in batch)
            assert place - before <= 2 + 2  # running, handed over ahead; and each other lane if its turn was overdue
        await until(lambda: scorer.ladder.report()["slow"])
        assert scorer.ladder.state == "chosen"
        assert value("model_slowdown_ratio") > 5
        assert scorer.pace.limits.max_tokens == 32  # as small as allowed
        await asyncio.gather(*map(soon, flood))
    told = [record.getMessage() for record in caplog.records if "the model is slow" in record.getMessage()]
    assert len(told) == 1


# ---- all of it at once


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_every_text_is_answered_once_and_only_poison_is_blamed(data: st.DataObject) -> None:
    """Illnesses of both ways, shortages of memory and broken loads follow one another; texts come in three lanes."""
    kinds = st.sampled_from(["well", "well", "chosen ill", "both ill", "no memory", "cannot load"])
    script = data.draw(st.lists(kinds, min_size=1, max_size=12))
    size = st.lists(st.integers(0, 9), min_size=1, max_size=12)
    texts = [
        [f"{turn:02}-{place} {'fine..' if kind else 'poison'}" for place, kind in enumerate(data.draw(size))]
        for turn in range(len(script))
    ]
    clock = Clock()
    chosen, reference = FakeModel(poison=["poison"]), FakeModel(poison=["poison"], runtime="plain")
    state = {"loads": True}

    def load() -> Loaded:
        if not state["loads"]:
            raise IntegrityError("model.onnx: damaged")
        return loaded(reference)

    async def play() -> list[list[Outcome]]:
        scorer = scorer_of(chosen, clock, load, Bounds(64, 8, 4096, 0.0, 100.0))
        futures: list[asyncio.Future[list[Outcome]]] = []
        async with at_work(scorer, clock=clock, tick_s=0.001):
            for turn, kind in enumerate(script):
                chosen.broken, reference.broken = kind != "well" and kind != "no memory", kind == "both ill"
                chosen.memory_tokens = 40 if kind == "no memory" else 1_000_000
                state["loads"] = kind != "cannot load"
                futures.append(await scorer.submit(texts[turn], turn % 3))
                await asyncio.sleep(0.003)
                clock.sleep(20.0)
            chosen.broken, reference.broken, state["loads"] = False, False, True
            return await cured(clock, *futures)

    for given_texts, outcomes in zip(texts, asyncio.run(play()), strict=True):
        expected = ["failed" if "poison" in text else chosen.label_of(text) for text in given_texts]
        assert answers(chosen, outcomes) == expected


def test_the_report_can_be_written_as_json() -> None:
    report: dict[str, Any] = scorer_of(FakeModel(), Clock()).ladder.report()
    assert report["state"] == "chosen" and report["slow"] is False and report["problems"] == {}
