"""The micro-batcher returns every item once, in order, within its deadline; the clock is ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.batching import Batch, Limits, MicroBatcher

LIMITS = Limits(max_events=4, max_tokens=40, max_wait_s=0.02)


def test_nothing_waits() -> None:
    assert MicroBatcher[str](LIMITS).due_in_s(0.0) is None


def test_a_lone_item_waits_for_its_deadline_and_no_longer() -> None:
    batcher = MicroBatcher[str](LIMITS)
    batcher.add("a", 5, now_s=1.0)
    assert batcher.due_in_s(1.0) == pytest.approx(0.02)
    assert batcher.due_in_s(1.03) == 0.0
    assert batcher.pop(1.03).items == ["a"]


def test_a_later_item_does_not_move_the_deadline_of_the_first() -> None:
    batcher = MicroBatcher[str](LIMITS)
    batcher.add("a", 5, now_s=1.0)
    batcher.add("b", 5, now_s=1.019)
    assert batcher.due_in_s(1.02) == 0.0


def test_count_closes_a_batch() -> None:
    batcher = MicroBatcher[int](LIMITS)
    for number in range(6):
        batcher.add(number, 1, now_s=0.0)
    assert batcher.due_in_s(0.0) == 0.0
    assert batcher.pop(0.0).items == [0, 1, 2, 3]
    assert batcher.due_in_s(0.0) == 0.02
    assert batcher.pop(0.0).items == [4, 5]


def test_the_budget_counts_padding() -> None:
    batcher = MicroBatcher[str](LIMITS)
    batcher.add("short", 2, now_s=0.0)
    batcher.add("long", 20, now_s=0.0)  # 2 x 20 = 40 padded
    assert batcher.due_in_s(0.0) == 0.0
    batcher.add("next", 2, now_s=0.0)
    assert batcher.pop(0.0) == Batch(["short", "long"], tokens=22, padded_tokens=40, waited_s=0.0)
    assert batcher.pop(0.0).items == ["next"]


def test_an_item_longer_than_the_budget_goes_alone() -> None:
    batcher = MicroBatcher[str](LIMITS)
    batcher.add("huge", 400, now_s=0.0)
    batcher.add("small", 1, now_s=0.0)
    assert batcher.pop(0.0).items == ["huge"]
    assert batcher.pop(0.0).items == ["small"]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60), st.floats(0, 0.05)), max_size=60),
    st.builds(
        Limits,
        max_events=st.integers(1, 8),
        max_tokens=st.integers(1, 100),
        max_wait_s=st.floats(0, 0.05, allow_subnormal=False),
    ),
)
def test_every_item_once_in_order_within_bounds_and_deadline(
    arrivals: list[tuple[int, int, float]], limits: Limits
) -> None:
    """Arrivals are (partition, tokens, pause before it); the driver sleeps exactly as long as the batcher says."""
    batcher = MicroBatcher[tuple[int, int, float]](limits)
    now_s, popped = 0.0, list[tuple[float, Batch[tuple[int, int, float]]]]()

    def drain(until_s: float | None) -> None:
        nonlocal now_s
        while (due := batcher.due_in_s(now_s)) is not None and (until_s is None or now_s + due <= until_s):
            now_s += due
            popped.append((now_s, batcher.pop(now_s)))
        now_s = now_s if until_s is None else max(now_s, until_s)

    arrived = []
    for index, (partition, tokens, pause_s) in enumerate(arrivals):
        drain(now_s + pause_s)
        arrived.append((partition, index, now_s))
        batcher.add((partition, index, now_s), tokens, now_s)
    drain(None)

    assert [item for _, batch in popped for item in batch.items] == arrived
    tokens_of = {index: tokens for index, (_, tokens, _) in enumerate(arrivals)}
    for at_s, batch in popped:
        longest = max(tokens_of[index] for _, index, _ in batch.items)
        assert batch.padded_tokens == longest * len(batch.items)
        assert batch.tokens == sum(tokens_of[index] for _, index, _ in batch.items)
        assert len(batch.items) <= limits.max_events
        assert len(batch.items) == 1 or batch.padded_tokens <= limits.max_tokens
        assert all(at_s - since_s <= limits.max_wait_s + 1e-9 for _, _, since_s in batch.items)
