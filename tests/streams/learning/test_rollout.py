"""Another release in a running worker: each partition changes once, a broken one changes nothing, the old one goes."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest

from models.errors import IntegrityError
from streams import metrics
from streams.embedded import EmbeddedBroker
from streams.events import Release, ReleaseMode
from streams.learning.releases_topic import Standing
from streams.learning.rollout import Rollout
from streams.live import Loaded
from streams.scoring import Scorer
from streams.serving import in_share
from streams.settings import Settings
from tests.streams.fakes import LABELS, FakeModel, loaded
from tests.streams.learning.promoted import release
from tests.streams.pipelines import Running, numbered, offsets, running, slice_of, values
from tests.streams.serving import bounds

MakeSettings = Callable[..., Settings]
FIVE = 5


def named(
    name: str, heads: dict[str, Sequence[str]] | None = None, gate: threading.Semaphore | None = None
) -> FakeModel:
    model = FakeModel(heads=heads or {"risk": LABELS}, gate=gate)
    model.release = name
    return model


def champion(name: str, task: str = "risk") -> Release:
    return release(name, task)


def standing(*records: Release) -> Standing:
    return {(one["task"], one["role"]): one for one in records}


class Stock:
    """The releases there are, as `prepare` finds them; those not there are broken."""

    def __init__(self, *models: FakeModel) -> None:
        self._models = {one.release: one for one in models}
        self.asked = list[str]()

    def prepare(self, record: Release, tasks: Sequence[str]) -> Loaded:
        self.asked.append(record["release"])
        if record["release"] not in self._models:
            raise IntegrityError("model.onnx: is not the file this release was made with")
        model = self._models.pop(record["release"])
        return replace(loaded(model), sha256=record["sha256"])


def rollout(settings: Settings, one: Running, stock: Stock) -> Rollout:
    scorer = partial(Scorer, bounds=bounds())
    source = settings.sources["news"].model_copy(update={"tasks": tuple(one.tasks)})
    settings = settings.model_copy(update={"sources": {"news": source}})
    return Rollout(settings, one.device, {"news": one.pipeline}, one.scorers, scorer, stock.prepare)


def sample(name: str, **labels: object) -> float | None:
    return metrics.REGISTRY.get_sample_value(f"streamgauge_{name}", {key: str(value) for key, value in labels.items()})


async def releases_by_offset(settings: Settings, partition: int = 0) -> list[tuple[int, str]]:
    found = await values(settings, "predictions")
    return sorted((one["source"]["offset"], one["release"]) for one in found if one["source"]["partition"] == partition)


async def test_each_partition_changes_once_and_where_it_is_said(
    embedded: EmbeddedBroker, settings_at: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Slices before the swap are still in the model when those after it come; both partitions have some of each."""
    caplog.set_level(logging.INFO)
    settings, gate = settings_at(embedded.bootstrap), threading.Semaphore(0)
    old, new = named("old", gate=gate), named("new")
    async with running(settings, old, in_flight=20) as one:
        for turn in range(3):
            for partition in (0, 1):
                await one.pipeline.accept(slice_of(numbered(FIVE, FIVE * turn), FIVE * turn, partition))
        await old.running(1)
        await rollout(settings, one, Stock(new)).follow(standing(champion("new")))
        for turn in range(3, 6):
            await one.pipeline.accept(slice_of(numbered(FIVE, FIVE * turn), FIVE * turn))
        await one.pipeline.accept(slice_of(numbered(FIVE, 3 * FIVE), 3 * FIVE, 1))
        gate.release(1000)
        await one.until_finished(10)
    assert await releases_by_offset(settings) == [(at, "old" if at < 15 else "new") for at in range(30)]
    assert await releases_by_offset(settings, 1) == [(at, "old" if at < 15 else "new") for at in range(20)]
    assert sum(map(len, old.batches)) == 30 and sum(map(len, new.batches)) == 20, "a text was scored twice or not"
    for partition in (0, 1):
        place = {"task": "risk", "topic": "news", "partition": partition}
        assert sample("release_effective_offset", **place, release="new") == 15
        assert sample("release_effective_offset", **place, release="old") is None
        assert f"risk: release new from news/{partition}/15 on, after old" in caplog.text


async def test_the_old_model_goes_once_nothing_counts_on_it(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    settings, gate = settings_at(embedded.bootstrap), threading.Semaphore(0)
    old, new = named("old", gate=gate), named("new")
    async with running(settings, old) as one:
        await one.pipeline.accept(slice_of(numbered(FIVE)))
        await old.running(1)
        gone, loop = asyncio.Event(), asyncio.get_running_loop()
        weakref.finalize(one.scorers[0].loaded, loop.call_soon_threadsafe, gone.set)
        following = rollout(settings, one, Stock(new))
        await following.follow(standing(champion("new")))
        one.scorers.clear()
        with pytest.raises(TimeoutError):  # the device looks every half second, and a slice still waits for it
            await asyncio.wait_for(gone.wait(), 0.7)
        gate.release(1000)
        await one.until_finished(1)
        await asyncio.wait_for(gone.wait(), 10)
        assert list(one.device.report()) == ["risk"]


async def test_what_is_broken_changes_nothing_but_the_alarm(
    embedded: EmbeddedBroker, settings_at: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_at(embedded.bootstrap)
    stock = Stock(named("good"))
    async with running(settings, named("old")) as one:
        following = rollout(settings, one, stock)
        for _ in range(3):
            await following.follow(standing(champion("broken")))
        assert stock.asked == ["broken"], "what is broken is not loaded again and again"
        assert sample("release_refused", task="risk", role="champion") == 1
        assert "risk: release broken cannot serve, what served goes on: model.onnx: is not" in caplog.text
        await one.pipeline.accept(slice_of(numbered(FIVE)))
        await following.follow(standing(champion("good")))
        assert sample("release_refused", task="risk", role="champion") == 0
        await one.pipeline.accept(slice_of(numbered(FIVE, FIVE), FIVE))
        await one.until_finished(2)
    assert await releases_by_offset(settings) == [(at, "old" if at < FIVE else "good") for at in range(10)]


async def test_tasks_part_and_meet_again_without_loading_anything_twice(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    settings = settings_at(embedded.bootstrap)
    both: dict[str, Sequence[str]] = {"risk": LABELS, "sentiment": LABELS}
    stock = Stock(named("joint", both))
    async with running(settings, named("old", both)) as one:
        following = rollout(settings, one, stock)
        await one.pipeline.accept(slice_of(numbered(FIVE)))
        await following.follow(standing(champion("joint")))
        await one.pipeline.accept(slice_of(numbered(FIVE, FIVE), FIVE))
        await following.follow(standing(champion("joint"), champion("joint", "sentiment")))
        await one.pipeline.accept(slice_of(numbered(FIVE, 2 * FIVE), 2 * FIVE))
        await one.until_finished(3)
        assert list(one.device.report()) == ["risk+sentiment"]
    assert stock.asked == ["joint"]
    served = {
        (one["source"]["offset"] // FIVE, one["task"], one["release"]) for one in await values(settings, "predictions")
    }
    assert served == {
        (0, "risk", "old"), (0, "sentiment", "old"), (1, "risk", "joint"), (1, "sentiment", "old"),
        (2, "risk", "joint"), (2, "sentiment", "joint"),
    }  # fmt: skip
    found = offsets(await values(settings, "predictions"))
    assert found == sorted([*range(15), *range(15)])


# ---- challengers


def challenger(name: str, mode: ReleaseMode, share: float = 0.5) -> Release:
    record = release(name, role="challenger", mode=mode)
    return {**record, "share": share}


def keyed(count: int, first: int = 0, text: bytes = b"text") -> list[bytes]:
    """Events with a key of their own each."""
    return [b'{"id": "%d", "text": "%s", "symbols": ["S%d"]}' % (n, text, n) for n in range(first, first + count)]


def taken(count: int, name: str) -> set[int]:
    return {number for number in range(count) if in_share(f"S{number}", name, 0.5)}


async def pairs(settings: Settings, count: int) -> dict[int, tuple[str, str]]:
    """What each release said, by offset, once so many pairs are there."""
    async with asyncio.timeout(20):
        while len(found := await values(settings, "shadow")) < count:
            pass
    assert len(found) == count
    return {one["source"]["offset"]: (one["champion"]["release"], one["challenger"]["release"]) for one in found}


async def test_a_challenger_in_the_shadow_scores_its_share_and_serves_nobody(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    settings = settings_at(embedded.bootstrap)
    async with running(settings, named("old")) as one:
        following = rollout(settings, one, Stock(named("rival")))
        await following.follow(standing(challenger("rival", "shadow")))
        assert sample("challenger_share", task="risk", mode="shadow") == 0.5
        await one.pipeline.accept(slice_of(keyed(40)))
        await one.until_finished(1)
        assert await pairs(settings, len(taken(40, "rival"))) == dict.fromkeys(taken(40, "rival"), ("old", "rival"))
        await following.follow(standing())
        assert sample("challenger_share", task="risk", mode="shadow") == 0
        await one.pipeline.accept(slice_of(keyed(40, 40), 40))
        await one.until_finished(2)
    assert await releases_by_offset(settings) == [(at, "old") for at in range(80)]
    assert len(await values(settings, "shadow")) == len(taken(40, "rival"))


async def test_what_served_goes_on_in_the_shadow_and_serves_again_without_being_loaded(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    """As after a promotion that is watched over, and is taken back."""
    settings = settings_at(embedded.bootstrap)
    stock = Stock(named("first"), named("second"))
    async with running(settings, named("old")) as one:
        following = rollout(settings, one, stock)
        await following.follow(standing(champion("first")))
        await following.follow(standing(champion("second"), challenger("first", "shadow")))
        await one.pipeline.accept(slice_of(keyed(40)))
        await one.until_finished(1)
        its = taken(40, "first")
        assert await pairs(settings, len(its)) == dict.fromkeys(its, ("second", "first"))
        await following.follow(standing(champion("first")))
        await one.pipeline.accept(slice_of(keyed(40, 40), 40))
        await one.until_finished(2)
        assert stock.asked == ["first", "second"]
    assert await releases_by_offset(settings) == [(at, "second" if at < 40 else "first") for at in range(80)]


async def test_a_canary_serves_its_keys_and_the_champion_what_it_fails_on(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    """The champion is compared on the canary's keys, and one text breaks the canary alone."""
    settings = settings_at(embedded.bootstrap)
    its = taken(40, "rival")
    broken = min(its)
    events = keyed(40)
    events[broken] = keyed(1, broken, b"poison")[0]
    rival = FakeModel(poison=["poison"])
    rival.release = "rival"
    async with running(settings, named("old")) as one:
        following = rollout(settings, one, Stock(rival))
        await following.follow(standing(challenger("rival", "canary")))
        await one.pipeline.accept(slice_of(events))
        await one.until_finished(1)
        assert await pairs(settings, len(its) - 1) == dict.fromkeys(its - {broken}, ("old", "rival"))
    served = dict(await releases_by_offset(settings))
    assert served == {at: "rival" if at in its - {broken} else "old" for at in range(40)}


async def test_a_canary_that_nothing_can_run_is_taken_off_and_loses_nothing(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    settings = settings_at(embedded.bootstrap)
    rival = FakeModel(broken=True)
    rival.release = "rival"
    async with running(settings, named("old")) as one:
        following = rollout(settings, one, Stock(rival))
        wanted = standing(challenger("rival", "canary"))
        await following.follow(wanted)
        await one.pipeline.accept(slice_of(keyed(40)))
        async with asyncio.timeout(20):
            while not one.finished:
                await following.follow(wanted)
                await asyncio.sleep(0.05)
        assert sample("release_refused", task="risk", role="challenger") == 1
        assert not one.device.holding
        await one.pipeline.accept(slice_of(keyed(40, 40), 40))
        await one.until_finished(2)
    assert await releases_by_offset(settings) == [(at, "old") for at in range(80)]


async def test_a_challenger_that_is_promoted_is_not_loaded_again(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    settings, stock = settings_at(embedded.bootstrap), Stock(named("rival"))
    async with running(settings, named("old")) as one:
        following = rollout(settings, one, stock)
        await following.follow(standing(challenger("rival", "canary", 0.0)))
        await one.pipeline.accept(slice_of(keyed(FIVE)))
        await following.follow(standing(champion("rival")))
        await one.pipeline.accept(slice_of(keyed(FIVE, FIVE), FIVE))
        await one.until_finished(2)
        assert list(one.device.report()) == ["risk"]
    assert stock.asked == ["rival"]
    assert await releases_by_offset(settings) == [(at, "old" if at < FIVE else "rival") for at in range(10)]


async def test_texts_that_an_ill_champion_holds_go_to_the_one_rolled_back_to(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    settings = settings_at(embedded.bootstrap)
    async with running(settings, FakeModel(broken=True)) as one:
        await one.pipeline.accept(slice_of(keyed(FIVE)))
        async with asyncio.timeout(20):
            while not one.device.holding:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.01)
        await rollout(settings, one, Stock(named("before"))).follow(standing(champion("before")))
        await one.until_finished(1)
    assert await releases_by_offset(settings) == [(at, "before") for at in range(FIVE)]
