from __future__ import annotations

import asyncio

import pytest

from streams.exits import AccessRefused, BrokerUnavailable
from streams.standing import keep_standing
from tests.streams.fakes import Clock

REFUSED = AccessRefused("refused by the test")
AWAY = BrokerUnavailable("nobody answers")


async def asked(answers: list[Exception | None], patience_s: float = 30) -> int:
    """Ask until the answers are used up or it ends; returns how often it asked. None in `answers` is a welcome."""
    clock, left = Clock(0), list(answers)

    def ask() -> None:
        if (answer := left.pop(0)) is not None:
            raise answer

    async def sleep(seconds: float) -> None:
        clock.now_s += seconds
        if not left:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keep_standing(lambda: True, ask, patience_s, sleep, clock)
    return len(answers) - len(left)


async def test_a_refusal_that_lasts_ends_it_with_its_words() -> None:
    with pytest.raises(AccessRefused, match="refused by the test"):
        await asked([REFUSED] * 100)


@pytest.mark.parametrize("between", [None, AWAY])
async def test_a_refusal_that_passes_does_not(between: Exception | None) -> None:
    answers: list[Exception | None] = [REFUSED, REFUSED, REFUSED, between] * 5
    assert await asked(answers) == len(answers)


async def test_an_outage_never_does() -> None:
    assert await asked([AWAY] * 100) == 100


async def test_it_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AccessRefused):
        await asked([REFUSED] * 100)
    assert len(caplog.records) == 1
    assert "refused by the test; ending if that lasts for 30 s" in caplog.text


async def test_without_trouble_nobody_is_asked() -> None:
    turns = 0

    async def sleep(_: float) -> None:
        nonlocal turns
        turns += 1
        if turns > 10:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keep_standing(lambda: False, _never, sleep=sleep)


def _never() -> None:
    raise AssertionError("asked without need")
