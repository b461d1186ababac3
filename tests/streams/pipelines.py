"""A source's pipeline at work: slices in, outputs on the embedded broker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from faust.types import TP

from models.tasks import LabelPolicy
from streams.consuming import Slice
from streams.device import Device
from streams.evidence import AlertEvidence
from streams.exits import BrokerUnavailable
from streams.intake import Intake
from streams.learning.shadow import Shadow
from streams.pipeline import SourcePipeline
from streams.publishing import Publisher
from streams.room import Room
from streams.scoring import Scorer
from streams.settings import OUTPUT_TOPICS, Settings
from tests.streams.fakes import LABELS, FakeModel, loaded, task_of
from tests.streams.records import FakeRecord
from tests.streams.serving import bounds
from tests.streams.wire import read_all

GOOD = b'{"id": "%d", "ts": "2026-03-01T12:00:00Z", "text": "%s", "symbols": ["ACME"]}'


def slice_of(values: Sequence[bytes], first: int = 0, partition: int = 0) -> Slice:
    records = [FakeRecord(value, first + place, "news", partition=partition) for place, value in enumerate(values)]
    return Slice(TP("news", partition), records, generation_id=1)


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [GOOD % (number, b"x" * (1 + number * 5 % 17)) for number in range(first, first + count)]


BAD = {"bad": LabelPolicy(alert_above=0.5, severity="high")}
BULK = 2


def risk(gate: threading.Semaphore | None = None, poison: Sequence[str] = ()) -> FakeModel:
    return FakeModel(gate=gate, poison=poison)


def tone() -> FakeModel:
    return FakeModel(heads={"tone": LABELS})


class Running:
    """A pipeline at work on these models, and what it has finished."""

    def __init__(
        self,
        settings: Settings,
        models: Sequence[FakeModel],
        tasks: Sequence[str],
        in_flight: int,
        on_finish: Callable[[Slice], None],
        publisher: Publisher,
        shed_after_s: float | None,
        explain_s: float | None,
    ) -> None:
        self.finished: list[Slice] = []
        self.tasks = tuple(tasks)
        self.scorers = scorers = [
            Scorer(loaded(one, *(task_of(task, BAD) for task in one.heads)), bounds()) for one in models
        ]
        self.device = Device(scorers, 1)

        def finish(one: Slice) -> None:
            on_finish(one)
            self.finished.append(one)

        intake = Intake("news", settings.sources["news"], settings.intake)
        evidence = None if explain_s is None else AlertEvidence(explain_s)
        self.pipeline = SourcePipeline(
            intake,
            scorers,
            tasks,
            BULK,
            publisher,
            settings.surge,
            Room(in_flight, 1 << 26),
            finish,
            shed_after_s,
            evidence,
            shadow=Shadow(publisher),
        )
        self.loops = [asyncio.create_task(loop()) for loop in (self.pipeline.run, self.device.run)]

    async def until_finished(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.finished) < count:
                for loop in self.loops:
                    if loop.done():
                        loop.result()
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(
    settings: Settings,
    *models: FakeModel,
    tasks: Sequence[str] = (),
    in_flight: int = 4,
    on_finish: Callable[[Slice], None] = lambda one: None,
    timeout_s: float = 30,
    shed_after_s: float | None = None,
    explain_s: float | None = None,
) -> AsyncIterator[Running]:
    """Without tasks the source asks for all that the models have."""
    topics = {name: getattr(settings.topics, name) for name in OUTPUT_TOPICS}
    publisher = Publisher({"bootstrap.servers": settings.broker.bootstrap, "log_level": 0}, topics, timeout_s)
    asked = tasks or [task for one in models for task in one.heads]
    one = Running(settings, models, asked, in_flight, on_finish, publisher, shed_after_s, explain_s)
    try:
        yield one
    finally:
        for loop in one.loops:
            loop.cancel()
        for loop in one.loops:
            with suppress(asyncio.CancelledError, BrokerUnavailable):
                await loop
        one.device.close()
        await asyncio.to_thread(publisher.close, 0.5)


async def values(settings: Settings, name: str) -> list[dict[str, Any]]:
    topic = getattr(settings.topics, name)
    found = await asyncio.to_thread(read_all, settings.broker.bootstrap, topic)
    return [orjson.loads(message.value() or b"") for message in found]


def offsets(outputs: Sequence[dict[str, Any]]) -> list[int]:
    return sorted(one["source"]["offset"] for one in outputs)
