"""Each output once, for a consumer of a stream in which workers repeat themselves."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import dedupe
from streams.dedupe import Deduplicator


def output(offset: int, partition: int = 0, kind: str = "risk", topic: str = "news") -> dict[str, Any]:
    where = {"name": topic, "topic": topic, "partition": partition, "offset": offset}
    return {"id": f"{topic}/{partition}/{offset}/{kind}", "source": where}


def taken(seen: Deduplicator, stream: list[dict[str, Any]]) -> list[str]:
    """The ids a consumer acts on."""
    found = []
    for one in stream:
        if not seen.before(one):
            found.append(one["id"])
            seen.remember(one)
    return found


def repeated_stream(rng: random.Random, events: int, uncommitted: int) -> list[dict[str, Any]]:
    """Three partitions, two outputs an event; a partition goes back now and then, by less than `uncommitted`."""
    streams = []
    for partition in range(3):
        stream, offset, end = list[dict[str, Any]](), 0, 0
        while offset < events:
            stream += [output(offset, partition, kind) for kind in ("risk", "tone")]
            end = max(end, offset + 1)
            offset = max(0, end - rng.randrange(uncommitted)) if rng.random() < 0.03 else offset + 1
        streams.append(stream)
    merged = []
    while any(streams):
        busy = rng.choice([one for one in streams if one])
        turn = rng.randrange(1, 300)
        merged += busy[:turn]
        del busy[:turn]
    return merged


@pytest.mark.parametrize("seed", range(5))
def test_each_output_is_taken_once_as_long_as_repetitions_are_within_the_window(seed: int) -> None:
    stream = repeated_stream(random.Random(seed), events=600, uncommitted=40)
    found = taken(Deduplicator(window=40), stream)
    assert len(stream) > len(found) == len(set(found)) == 3 * 600 * 2
    assert set(found) == {one["id"] for one in stream}


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2), st.sampled_from(["risk", "tone"]))),
       st.integers(1, 20))  # fmt: skip
@settings(deadline=None)
def test_in_any_order_nothing_new_is_ever_taken_for_a_repetition(
    places: list[tuple[int, int, str]], window: int
) -> None:
    stream = [output(*one) for one in places]
    found = taken(Deduplicator(window), stream)
    assert set(found) == {one["id"] for one in stream}


@given(st.integers(1, 50), st.integers(0, 500), st.data())
@settings(deadline=None)
def test_the_window_is_as_long_as_it_says(window: int, newest: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(max(0, newest - window), newest))
    seen = Deduplicator(window)
    seen.remember(output(old))
    for offset in range(old, newest + 1):
        seen.remember(output(offset))
    assert seen.before(output(old))


def test_what_was_not_remembered_yet_comes_again() -> None:
    """Acting on it failed: the consumer goes back and must be given it."""
    seen = Deduplicator()
    assert not seen.before(output(1))
    assert not seen.before(output(1))
    seen.remember(output(1))
    assert seen.before(output(1))


def test_a_consumer_that_starts_again_remembers_what_lies_behind_its_offset() -> None:
    stream = repeated_stream(random.Random(9), events=200, uncommitted=20)
    middle = len(stream) // 2
    first, second = Deduplicator(20), Deduplicator(20)
    found = taken(first, stream[:middle])
    for one in stream[max(0, middle - 1000) : middle]:
        second.remember(one)
    found += taken(second, stream[middle:])
    assert len(found) == len(set(found))


def test_memory_is_bounded_by_the_window_and_the_number_of_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Deduplicator(window=10)
    for offset in range(10_000):
        seen.remember(output(offset))
    (recent,) = seen._partitions.values()
    assert sum(map(len, recent.ids)) <= 20
    monkeypatch.setattr(dedupe, "MAX_PARTITIONS", 3)
    for partition in range(100):
        seen.remember(output(5, partition))
    assert len(seen._partitions) == 3
    assert seen.before(output(5, 99)) and not seen.before(output(5, 0))


@pytest.mark.parametrize("window", [0, -1])
def test_a_window_of_nothing_is_refused(window: int) -> None:
    with pytest.raises(ValueError, match=f"window is {window}; it must be 1 or more"):
        Deduplicator(window)
