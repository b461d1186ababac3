"""Scorers on a device for the length of a test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from streams.adaptive import Bounds
from streams.device import Device
from streams.scoring import Outcome, Scorer, ScoringFailed
from tests.streams.fakes import WAIT_S, FakeModel


def bounds(max_events: int = 64, tokens: int = 100_000, max_wait_s: float = 0.0) -> Bounds:
    """Bounds that leave nothing of the budget to be learned; without a wait nothing of the patience either."""
    return Bounds(max_events, tokens, tokens, max_wait_s, target_p99_s=0.2)


@asynccontextmanager
async def at_work(
    *scorers: Scorer, slots: int = 1, clock: Callable[[], float] = time.monotonic, **limits: float
) -> AsyncIterator[asyncio.Task[None]]:
    """The scorers on one device, and the device's loop; what the loop raises is the test's to look at."""
    device = Device(scorers, slots, clock, **limits)
    loop = asyncio.create_task(device.run())
    try:
        yield loop
    finally:
        loop.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await loop
        device.close()


async def soon(future: asyncio.Future[list[Outcome]]) -> list[Outcome]:
    """What the future comes to."""
    return await asyncio.wait_for(future, WAIT_S)


async def outcomes_of(scorer: Scorer, texts: Sequence[str], lane: int = 0) -> list[Outcome]:
    """Submit texts and wait for them."""
    return await soon(await scorer.submit(texts, lane))


def answers(model: FakeModel, outcomes: Sequence[Outcome], task: str = "risk") -> list[str]:
    """The label of each outcome under a task, or `failed`."""
    place = list(model.heads).index(task)
    return [
        "failed" if isinstance(one, ScoringFailed) else model.heads[task].labels[one[1][place][0]] for one in outcomes
    ]
