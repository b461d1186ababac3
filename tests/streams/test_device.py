"""The device: which batch runs next, and how many at once. Every step waits for what it needs, none for time."""

from __future__ import annotations

import asyncio
import gc
import threading
from itertools import pairwise

import pytest

from streams.adaptive import Bounds
from streams.device import Device
from streams.lanes import MAX_PASSED_OVER
from streams.scoring import ModelBroken, Scorer
from tests.streams.fakes import WAIT_S, FakeModel, loaded, task_of
from tests.streams.serving import answers, at_work, bounds, outcomes_of, soon

RISK, CHAT, BULK = 0, 1, 2
ALONE = bounds(max_events=1)  # every text is a batch
OPEN = 10_000  # calls that an open gate lets through


def numbered(name: str, count: int) -> list[str]:
    return [f"{name}-{number:03}" for number in range(count)]


def order(model: FakeModel) -> list[str]:
    """The texts of batches of one, as they passed the gate."""
    return [text for (text,) in model.batches]


@pytest.fixture
def gate() -> threading.Semaphore:
    """Shut: `release` lets calls of the model through."""
    return threading.Semaphore(0)


async def test_a_text_on_an_idle_device_goes_at_once(gate: threading.Semaphore) -> None:
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model, costs=((10, 0.01), (1000, 0.02))), bounds(max_wait_s=WAIT_S))
    async with at_work(scorer):
        future = await scorer.submit(["alone"])
        assert len(scorer.batcher) == 0  # handed over already
        gate.release()
        assert answers(model, await soon(future)) == [model.label_of("alone")]


@pytest.mark.parametrize("slots", [1, 2, 3])
async def test_one_batch_at_most_is_handed_over_ahead(slots: int, gate: threading.Semaphore) -> None:
    """Each one more would be ahead of whatever urgent comes next."""
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model), ALONE)
    async with at_work(scorer, slots=slots):
        futures = [await scorer.submit([text], BULK) for text in numbered("bulk", 20)]
        await model.running(slots)
        assert len(scorer.batcher) == 20 - slots - 1
        for done in range(1, 20 - slots):
            gate.release()
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            assert len(scorer.batcher) == max(0, 20 - slots - 1 - done)
            futures = [one for one in futures if not one.done()]
        gate.release(OPEN)
        await asyncio.gather(*map(soon, futures))
    assert model.most_at_once == slots


async def test_what_does_not_fill_a_batch_is_not_handed_over_ahead(gate: threading.Semaphore) -> None:
    """More may come and share the batch until a thread is free."""
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model), bounds(max_events=8))
    async with at_work(scorer):
        futures = [await scorer.submit(["first"])]
        await model.running(1)
        futures += [await scorer.submit([f"text {number}"]) for number in range(7)]
        assert len(scorer.batcher) == 7
        gate.release(OPEN)
        await asyncio.gather(*map(soon, futures))
    assert [len(batch) for batch in model.batches] == [1, 7]


@pytest.mark.parametrize("slots", [1, 2])
async def test_an_urgent_text_under_a_full_backlog_is_in_one_of_the_next_two_batches(
    slots: int, gate: threading.Semaphore
) -> None:
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model), ALONE)
    async with at_work(scorer, slots=slots):
        backlog = await scorer.submit(numbered("bulk", 50), BULK)
        gate.release(10)
        await model.running(10 + slots)
        urgent = await scorer.submit(["urgent"], RISK)
        assert len(scorer.batcher) >= 30
        gate.release(OPEN)
        await soon(urgent)
        await soon(backlog)
    # At the gate are those that run already; then comes the one handed over ahead, then this one.
    assert order(model).index("urgent") <= 10 + slots + 1 + (slots - 1)  # two threads may pass each other


async def test_bulk_is_not_starved_by_an_endless_stream_of_risk() -> None:
    model = FakeModel()
    scorer = Scorer(loaded(model), ALONE)
    async with at_work(scorer):
        bulk = await scorer.submit(numbered("bulk", 10), BULK)
        risk = [await scorer.submit(numbered(f"risk-{turn}", 50), RISK) for turn in range(4)]
        await soon(bulk)
        await asyncio.gather(*map(soon, risk))
    places = [place for place, text in enumerate(order(model)) if text.startswith("bulk")]
    assert all(after - before <= MAX_PASSED_OVER + 1 for before, after in pairwise(places))


async def test_chat_goes_before_bulk_and_after_risk(gate: threading.Semaphore) -> None:
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model), ALONE)
    async with at_work(scorer):
        futures = [await scorer.submit(["first", "ahead"], BULK)]
        for lane, name in ((BULK, "bulk"), (CHAT, "chat"), (RISK, "risk")):
            futures.append(await scorer.submit(numbered(name, 2), lane))
        gate.release(OPEN)
        await asyncio.gather(*map(soon, futures))
    assert order(model) == ["first", "ahead", *numbered("risk", 2), *numbered("chat", 2), *numbered("bulk", 2)]


async def test_two_models_share_the_device_in_the_order_of_lanes_and_age(gate: threading.Semaphore) -> None:
    passed: list[str] = []

    class Recorder(FakeModel):
        def run(self, windows):  # type: ignore[no-untyped-def]
            found = super().run(windows)
            passed.append(self.batches[-1][0])
            return found

    models = [Recorder(gate=gate), Recorder(gate=gate, heads={"tone": ("up", "down")})]
    one, other = (Scorer(loaded(model), ALONE) for model in models)
    async with at_work(one, other):
        futures = [await one.submit(["first", "ahead"], BULK)]
        futures += [await one.submit(["one bulk"], BULK), await other.submit(["other bulk"], BULK)]
        futures += [await other.submit(["other risk"], RISK), await one.submit(["one risk"], RISK)]
        gate.release(OPEN)
        await asyncio.gather(*map(soon, futures))
    assert passed == ["first", "ahead", "other risk", "one risk", "one bulk", "other bulk"]
    assert models[1].label_of("x", "tone") in ("up", "down")


async def test_two_slots_run_two_batches_at_once(gate: threading.Semaphore) -> None:
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model), ALONE)
    async with at_work(scorer, slots=2):
        future = await scorer.submit(numbered("text", 6))
        await model.running(2)  # neither has passed the gate
        gate.release(OPEN)
        assert answers(model, await soon(future)) == [model.label_of(text) for text in numbered("text", 6)]
    assert model.most_at_once == 2


async def test_where_texts_share_rows_all_slots_share_what_waits(gate: threading.Semaphore) -> None:
    """A small batch costs no more a token than a large one there, and every text comes back the sooner."""
    model = FakeModel(gate=gate, packs=True, slots=2)
    scorer = Scorer(loaded(model), bounds())
    async with at_work(scorer, slots=2):
        first = await scorer.submit(["x" * 10])
        second = await scorer.submit(["y" * 10])
        await model.running(2)
        many = await scorer.submit([letter * 10 for letter in "abcd"])
        gate.release(OPEN)
        answered = answers(model, await soon(many))
        assert answered == [model.label_of(letter * 10) for letter in "abcd"]
        await soon(first), await soon(second)
    assert sorted(map(len, model.batches)) == [1, 1, 1, 1, 2]  # 40 tokens in two shares, then what is left of them


async def test_what_is_done_comes_back_while_the_next_batch_runs(gate: threading.Semaphore) -> None:
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model), ALONE)
    async with at_work(scorer):
        first, second = await scorer.submit(["first"]), await scorer.submit(["second"])
        await model.running(1)
        gate.release()
        await soon(first)
        await model.running(2)
        assert not second.done()
        gate.release()
        await soon(second)


async def test_texts_are_tokenised_while_a_batch_runs(gate: threading.Semaphore) -> None:
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model), bounds())
    async with at_work(scorer):
        first = await scorer.submit(["first"])
        await model.running(1)
        second = await asyncio.wait_for(scorer.submit(["second"]), WAIT_S)
        assert len(scorer.batcher) == 1
        gate.release(OPEN)
        await asyncio.gather(soon(first), soon(second))


# ---- waiting for more


def patient(model: FakeModel, max_events: int = 1000) -> Scorer:
    """A scorer at which thousands a second arrive, so that waiting 50 ms for more pays."""
    slow_to_start = loaded(model, costs=((10, 1.0), (1000, 1.001)))
    return Scorer(slow_to_start, bounds(max_events, max_wait_s=0.05))


async def test_at_a_high_rate_a_text_waits_for_more_but_not_for_ever() -> None:
    model = FakeModel()
    scorer = patient(model)
    async with at_work(scorer):
        scorer.pace.arrived(100_000, asyncio.get_running_loop().time())
        future = await scorer.submit(["waits"])
        assert len(scorer.batcher) == 1
        more = await scorer.submit(["waits with it"])
        await asyncio.gather(soon(future), soon(more))  # nothing else arrives
    assert [sorted(batch) for batch in model.batches] == [["waits", "waits with it"]]


async def test_a_full_batch_does_not_wait_on_an_idle_device(gate: threading.Semaphore) -> None:
    scorer = patient(FakeModel(gate=gate), max_events=4)
    async with at_work(scorer):
        scorer.pace.arrived(100_000, asyncio.get_running_loop().time())
        futures = [await scorer.submit([f"text {number}"]) for number in range(3)]
        assert len(scorer.batcher) == 3
        futures.append(await scorer.submit(["the fourth"]))
        assert len(scorer.batcher) == 0
        gate.release(OPEN)
        await asyncio.gather(*map(soon, futures))


# ---- failures and the end


async def test_a_broken_model_ends_the_device_and_answers_nothing() -> None:
    broken, sound = FakeModel(broken=True), FakeModel(heads={"tone": ("up", "down")})
    one, other = Scorer(loaded(broken), ALONE), Scorer(loaded(sound), ALONE)
    async with at_work(one, other) as loop:
        future = await one.submit(numbered("text", 5))
        with pytest.raises(ModelBroken, match="fake-1"):
            await asyncio.wait_for(loop, WAIT_S)
        after = await other.submit(["after"])
        assert len(other.batcher) == 1
        assert not future.done() and not after.done()


async def test_a_model_that_answers_for_too_few_texts_ends_the_device() -> None:
    """No text may wait for ever for an answer that does not come."""

    class Short(FakeModel):
        def run(self, windows):  # type: ignore[no-untyped-def]
            return {task: rows[:1] for task, rows in super().run(windows).items()}

    scorer = Scorer(loaded(Short()), bounds())
    async with at_work(scorer) as loop:
        future = await scorer.submit(["one", "two"])
        with pytest.raises(ValueError, match="shorter"):
            await asyncio.wait_for(loop, WAIT_S)
        assert not future.done()


async def test_who_gives_up_waiting_harms_nobody(gate: threading.Semaphore) -> None:
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model), bounds())
    async with at_work(scorer):
        impatient, other = await scorer.submit(["impatient"]), await scorer.submit(["other"])
        impatient.cancel()
        gate.release(OPEN)
        assert answers(model, await soon(other)) == [model.label_of("other")]


async def test_the_end_comes_quietly_with_a_backlog_and_a_batch_under_way(gate: threading.Semaphore) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    model = FakeModel(gate=gate)
    scorer = Scorer(loaded(model), ALONE)
    device = Device([scorer], 1)
    backlog = await scorer.submit(numbered("text", 5))
    await model.running(1)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("model")]
    device.close()
    gate.release(OPEN)
    for thread in threads:  # it also runs what was handed over ahead
        await asyncio.to_thread(thread.join, WAIT_S)
    assert not any(thread.is_alive() for thread in threads)
    await asyncio.sleep(0)
    assert not backlog.done()
    del device, scorer
    gc.collect()  # a failure that nobody has asked for is told now
    assert complaints == []


async def test_costs_are_learned_from_what_runs() -> None:
    model = FakeModel()
    learning = Bounds(max_events=64, min_tokens=64, max_tokens=65_536, max_wait_s=0.0, target_p99_s=0.2)
    scorer = Scorer(loaded(model, task_of("risk"), costs=((10, 0.05), (1000, 2.0))), learning)
    before = scorer.pace.limits.max_tokens
    async with at_work(scorer):
        for turn in range(100):
            await outcomes_of(scorer, ["x" * (10 + turn)] * 3)
    assert before == 64
    assert scorer.pace.limits.max_tokens > before
    assert scorer.pace.cost.expected_s(100) < 0.1
