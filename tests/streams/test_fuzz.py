"""Hostile inputs in numbers: every one has exactly one end. `python -m tests.fuzz` runs as many as you like."""

from __future__ import annotations

import pytest

from tests.fuzz import fuzz
from tests.hostile.ordeal import Gauntlet
from tests.streams.records import FakeRecord

KINDS = {"NullValue", "NotUtf8", "NotJson", "NotFinite", "TooDeep", "TooLarge", "WrongShape", "EmptyText", "BadTime"}


@pytest.mark.parametrize("inputs", [3_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_every_hostile_input_has_exactly_one_bounded_end(inputs: int) -> None:
    found = fuzz(inputs, seed=inputs, quiet=True)
    print(found)
    assert found["problems"] == []
    assert found["inputs"] == found["events"] + found["dead_letters"] == inputs
    assert found["events"] > inputs / 10, "hardly anything was valid: the mutations are too coarse to prove much"
    assert found["errors"].keys() == KINDS


class Careless(Gauntlet):
    """An intake that forgets a check: what is not UTF-8 escapes it."""

    def _one(self, source: str, record: FakeRecord) -> None:
        (record.value or b"").decode()
        super()._one(source, record)


def test_the_ordeal_sees_what_escapes() -> None:
    careless = Careless()
    careless.run("news", [FakeRecord(b"\xff", 7), FakeRecord(b"{}", 8)])
    assert careless.found.escapes == 1
    assert careless.found.problems[0].startswith("offset 7: UnicodeDecodeError escaped")
