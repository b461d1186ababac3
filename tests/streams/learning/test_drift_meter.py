"""What a worker shows of drift: compared with the release's profile, a sample of what it scores, lately."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from streams import metrics
from streams.learning.drift_meter import DriftMeter
from streams.live import Loaded
from streams.scoring import Outcome, ScoringFailed
from tests.streams.fakes import LABELS, Clock, FakeModel, loaded
from tests.streams.learning.profiled import events_of, profile_of_texts, texts_of

WINDOW_S = 1200.0
LOOK_EVERY_S = 1.0


class Metered:
    """A meter, and a model of this task that everything is scored by."""

    def __init__(self, task: str, samples_per_s: float = 1000) -> None:
        self.clock = Clock()
        self.task = task
        self.meter = DriftMeter(samples_per_s, WINDOW_S, LOOK_EVERY_S, self.clock)
        self.model = FakeModel(heads={task: LABELS})
        self.loaded = replace(loaded(self.model), profiles={task: profile_of_texts(texts_of(600))})

    def outcomes(self, texts: Sequence[str], by: Loaded | None = None) -> list[Outcome]:
        rows = self.model.run([list(map(ord, text)) for text in texts])[self.task]
        return [(by or self.loaded, ((int(row.argmax()), row.tolist()),)) for row in rows]

    async def scores(self, texts: Sequence[str], by: Loaded | None = None) -> None:
        self.meter.sample(events_of(texts), self.outcomes(texts, by))
        await self.meter.look()

    def shown(self, name: str, **labels: str) -> float | None:
        labels = {"task": self.task, "release": "fake-1"} | labels
        return metrics.REGISTRY.get_sample_value(f"streamgauge_{name}", labels)

    def drifted(self) -> set[str]:
        found = set()
        for quantity in ("label", "confidence", "length", "unknown"):
            distance, limit = (self.shown(name, quantity=quantity) for name in ("drift_distance", "drift_limit"))
            assert distance is not None and limit is not None
            if distance > limit:
                found.add(quantity)
        return found


@pytest.fixture
def metered(unique: Callable[[str], str]) -> Metered:
    return Metered(unique("task"))


async def test_the_same_kind_of_events_is_no_drift(metered: Metered) -> None:
    await metered.scores(texts_of(300))
    assert metered.drifted() == set()
    assert metered.shown("drift_window_events") == 300
    assert metered.shown("expected_accuracy_ratio") == pytest.approx(0.9)
    assert metered.shown("expected_accuracy_at_release_ratio") == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("texts", "quantity"),
    [
        (texts_of(300, "odd"), "label"),
        ([text + "y" * 30 for text in texts_of(300)], "length"),
        ([text.replace("x", "Q") for text in texts_of(300)], "unknown"),
    ],
)
async def test_what_moved_is_told_from_what_did_not(metered: Metered, texts: list[str], quantity: str) -> None:
    await metered.scores(texts)
    assert quantity in metered.drifted()
    assert "confidence" not in metered.drifted()


async def test_old_events_stop_counting_and_a_release_that_is_gone_stops_showing(metered: Metered) -> None:
    await metered.scores(texts_of(300, "odd"))
    metered.clock.sleep(WINDOW_S)
    await metered.scores(texts_of(300))
    assert metered.drifted() == set()
    metered.clock.sleep(2 * WINDOW_S)
    await metered.meter.look()
    assert metered.shown("drift_distance", quantity="label") is None
    assert metered.shown("drift_window_events") is None


async def test_two_releases_are_not_mixed(metered: Metered) -> None:
    await metered.scores(texts_of(300))
    other = replace(metered.loaded, served=tuple(replace(one, release="fake-2") for one in metered.loaded.served))
    await metered.scores(texts_of(300, "odd"), by=other)
    assert "label" not in metered.drifted()
    assert metered.shown("drift_window_events", release="fake-2") == 300


@pytest.mark.parametrize("slice_events", [1, 7, 256])
async def test_so_many_a_second_are_looked_at_whatever_the_load(
    unique: Callable[[str], str], slice_events: int
) -> None:
    metered = Metered(unique("task"), samples_per_s=20)
    texts = texts_of(slice_events)
    events, outcomes = events_of(texts), metered.outcomes(texts)
    for _ in range(40):
        for _ in range(10):
            metered.meter.sample(events, outcomes)
            metered.clock.sleep(0.1)
        await metered.meter.look()
    looked_at = metered.shown("drift_window_events")
    assert looked_at is not None
    offered = 400 * slice_events
    assert looked_at <= 20 * (40 + 2 * LOOK_EVERY_S)
    assert looked_at >= 0.75 * min(offered, 20 * 40)


async def test_every_event_has_its_turn(unique: Callable[[str], str]) -> None:
    """Slices of three labels in a fixed order, one event of each looked at."""
    metered = Metered(unique("task"), samples_per_s=1)
    metered.meter.sample([], [])
    texts = texts_of(3)
    events, outcomes = events_of(texts), metered.outcomes(texts)
    for _ in range(300):
        metered.meter.sample(events, outcomes)
        metered.clock.sleep(1)
    await metered.meter.look()
    assert "label" not in metered.drifted()


async def test_what_failed_is_left_out_and_what_cannot_be_read_costs_a_figure_alone(metered: Metered) -> None:
    texts = texts_of(100)
    failed = ScoringFailed(metered.task, "broken", 4, "fake-1")
    metered.meter.sample(events_of(texts), [*metered.outcomes(texts)[:60], *[failed] * 40])
    await metered.meter.look()
    assert metered.shown("drift_window_events") == 60
    unreadable = FakeModel(heads={metered.task: LABELS}, cannot_encode=["calm"])
    await metered.scores(texts, by=replace(metered.loaded, model=unreadable))
    assert metered.shown("drift_window_events") == 60


async def test_a_release_without_a_profile_shows_nothing(metered: Metered) -> None:
    await metered.scores(texts_of(100), by=replace(metered.loaded, profiles={}))
    assert metered.shown("drift_window_events") is None


async def test_it_runs_beside_the_worker(unique: Callable[[str], str]) -> None:
    metered = Metered(unique("task"))
    loop = asyncio.create_task(metered.meter.run())
    texts = texts_of(30)
    metered.meter.sample(events_of(texts), metered.outcomes(texts))
    for _ in range(2000):
        await asyncio.sleep(0.01)
        if metered.shown("drift_window_events") == 30:
            break
    else:
        pytest.fail("it does not look")
    loop.cancel()
