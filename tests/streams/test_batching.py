"""The micro-batcher: every item once, the oldest first, little padding, nothing beyond the limits."""

from __future__ import annotations

import random
from itertools import accumulate
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.batching import PADDING_ALLOWED, Batch, Limits, MicroBatcher

LIMITS = Limits(max_events=4, max_tokens=40)


def batcher_of(*tokens: int, lanes: int = 1) -> MicroBatcher[int]:
    """Items 0, 1, 2 ... of so many tokens, each a second after the one before, in lane 0."""
    batcher = MicroBatcher[int](lanes)
    for item, length in enumerate(tokens):
        batcher.add([(item, length)], 0, float(item))
    return batcher


def drained(batcher: MicroBatcher[int], limits: Limits) -> list[list[int]]:
    batches = []
    while len(batcher):
        batches.append(batcher.pop(0, limits, 0.0).items)
    return batches


@pytest.mark.parametrize("others", [0, 3])
def test_a_lane_in_which_nothing_waits_has_no_batch(others: int) -> None:
    batcher = MicroBatcher[int](2)
    batcher.add([(item, 5) for item in range(others)], 1, 0.0)
    with pytest.raises(IndexError):
        batcher.pop(0, Limits(4, 40, spare_tokens=40), 0.0)
    assert len(batcher) == others


def test_items_of_one_length_fill_a_batch_in_the_order_of_their_arrival() -> None:
    assert drained(batcher_of(*[5] * 10), LIMITS) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert drained(batcher_of(*[15] * 5), LIMITS) == [[0, 1], [2, 3], [4]]


def test_a_batch_is_the_oldest_item_and_those_nearest_to_it_in_length() -> None:
    batcher = batcher_of(100, 20, 101, 50, 99, 100)
    assert sorted(batcher.pop(0, Limits(10, 1000), 6.0).items) == [0, 2, 4, 5]
    assert batcher.pop(0, Limits(10, 1000), 6.0).items == [1]


def test_neighbours_join_while_padding_is_cheaper_than_a_batch_of_their_own() -> None:
    assert batcher_of(100, 90).pop(0, Limits(4, 1000, spare_tokens=1), 2.0).items == [0]
    assert batcher_of(100, 90).pop(0, Limits(4, 1000, spare_tokens=10), 2.0).items == [0, 1]
    assert batcher_of(100, 90, 80, 60).pop(0, Limits(4, 1000, spare_tokens=16), 2.0).items == [0, 1, 2]


def test_an_item_longer_than_the_budget_goes_alone() -> None:
    batcher = batcher_of(400, 1, 400)
    assert batcher.pop(0, Limits(4, 40, spare_tokens=40), 3.0) == Batch([0], 400, waited_s=3.0)
    assert drained(batcher, Limits(4, 40, spare_tokens=40)) == [[1], [2]]


def test_a_batch_says_how_long_its_longest_waiting_item_did() -> None:
    batcher = batcher_of(5, 5, lanes=2)
    batcher.add([(2, 5)], 1, -60.0)
    assert batcher.pop(0, Limits(2, 40), 5.0).waited_s == 5.0
    batcher.add([(3, 5)], 0, 4.0)
    found = batcher.pop(0, Limits(4, 40, spare_tokens=20), 5.0)
    assert (sorted(found.items), found.waited_s) == ([2, 3], 65.0)


def test_other_lanes_ride_along_where_it_costs_next_to_nothing() -> None:
    def popped(own: int, spare_tokens: int) -> int:
        batcher = MicroBatcher[str](3)
        batcher.add([("own", 10)] * own, 1, 0.0)
        batcher.add([("rider", 10)] * 20, 0, 0.0)
        batcher.add([("rider", 10)] * 20, 2, 0.0)
        return batcher.pop(1, Limits(64, 1000, spare_tokens), 0.0).items.count("rider")

    assert popped(1, 0) == 0
    assert popped(1, 60) == 5  # a batch of 60 tokens costs at most twice what one of 10 does
    assert popped(5, 60) == 1
    assert popped(6, 60) == 0


class Waiting(NamedTuple):
    number: int
    lane: int
    tokens: int
    since_s: float


class World:
    """A batcher, and beside it what it should hold."""

    def __init__(self, lanes: int) -> None:
        self.batcher = MicroBatcher[Waiting](lanes)
        self.lanes = range(lanes)
        self.waiting: set[Waiting] = set()
        self.now_s = 0.0
        self.added = 0

    def add(self, lane: int, lengths: list[int]) -> None:
        items = [Waiting(self.added + place, lane, tokens, self.now_s) for place, tokens in enumerate(lengths)]
        self.added += len(items)
        self.waiting |= set(items)
        self.batcher.add([(one, one.tokens) for one in items], lane, self.now_s)
        self.check()

    def pop(self, lane: int, limits: Limits) -> None:
        before = sorted((one for one in self.waiting if one.lane == lane), key=lambda one: one.number)
        if not before:
            with pytest.raises(IndexError):
                self.batcher.pop(lane, limits, self.now_s)
            return
        batch = self.batcher.pop(lane, limits, self.now_s)
        items = set(batch.items)
        assert len(items) == len(batch.items) and items <= self.waiting
        assert any(one.since_s == before[0].since_s for one in items if one.lane == lane)
        self.check_costs(batch, limits, lane)
        for length in {one.tokens for one in items if one.lane == lane}:
            alike = [one for one in before if one.tokens == length]
            taken = [one for one in batch.items if one.lane == lane and one.tokens == length]
            assert taken == alike[: len(taken)]
        self.waiting -= items
        self.check()

    def check_costs(self, batch: Batch[Waiting], limits: Limits, lane: int) -> None:
        count = len(batch.items)
        padded_tokens = max(one.tokens for one in batch.items) * count
        assert batch.tokens == sum(one.tokens for one in batch.items)
        assert batch.waited_s == self.now_s - min(one.since_s for one in batch.items)
        assert count <= limits.max_events
        assert count == 1 or padded_tokens <= limits.max_tokens
        lengths = len({(one.lane, one.tokens) for one in batch.items})  # each but the first may cost the spare tokens
        allowed = PADDING_ALLOWED * padded_tokens + limits.spare_tokens * lengths
        assert padded_tokens - batch.tokens <= allowed + 1e-6
        if any(one.lane != lane for one in batch.items):
            assert padded_tokens <= limits.spare_tokens

    def check(self) -> None:
        assert len(self.batcher) == len(self.waiting)
        for lane in self.lanes:
            mine, queue = [one for one in self.waiting if one.lane == lane], self.batcher.lanes[lane]
            assert (len(queue), queue.tokens) == (len(mine), sum(one.tokens for one in mine))
            assert not mine or queue.oldest_s == min(one.since_s for one in mine)
        assert self.batcher.tokens == sum(one.tokens for one in self.waiting)


some_limits = st.builds(
    Limits, max_events=st.integers(1, 8), max_tokens=st.integers(1, 200), spare_tokens=st.integers(0, 60)
)
steps = st.tuples(
    st.integers(0, 2),
    st.lists(st.one_of(st.integers(1, 9), st.integers(1, 120)), min_size=1, max_size=12) | some_limits,
    st.sampled_from([0.0, 0.001, 1.0]),
)


@given(st.lists(steps, max_size=40), some_limits)
@settings(deadline=None)
def test_every_item_once_the_oldest_first_within_all_bounds(
    sequence: list[tuple[int, list[int] | Limits, float]], at_the_end: Limits
) -> None:
    """Whatever is added to whichever lane and whenever batches are taken, each under limits of its own."""
    world = World(3)
    for lane, what, passed_s in sequence:
        world.now_s += passed_s
        if isinstance(what, Limits):
            world.pop(lane, what)
        else:
            world.add(lane, what)
    for lane in world.lanes:
        while len(world.batcher.lanes[lane]):
            world.pop(lane, at_the_end)
    assert not world.waiting


def real_lengths(count: int, seed: int) -> list[int]:
    """Tokens as real news, chats and payments have them: short, a few long, and the windows of what is too long."""
    rng = random.Random(seed)
    found: list[int] = []
    while len(found) < count:
        kind = rng.random()
        if kind < 0.55:
            found.append(min(95, max(5, round(rng.lognormvariate(2.74, 0.37)))))  # headlines
        elif kind < 0.85:
            found.append(round(min(57, max(29, rng.gauss(38.5, 2.6)))))  # payments
        elif kind < 0.95:
            found.append(round(min(76, max(50, rng.gauss(61.6, 4.6)))))  # case notes
        elif kind < 0.99:
            found.append(min(96, max(3, round(rng.lognormvariate(2.5, 0.4)))))  # chat turns
        else:
            found += [*[96] * rng.randrange(1, 12), rng.randrange(26, 97)]  # whole conversations
    return found[:count]


@pytest.mark.parametrize("spare_tokens", [0, 60, 250])
@pytest.mark.parametrize("lanes", [1, 3])
def test_at_full_load_a_tenth_at_most_is_padding(lanes: int, spare_tokens: int) -> None:
    lengths = real_lengths(20_000, seed=7)
    batcher, limits, rng = MicroBatcher[int](lanes), Limits(1024, 1024, spare_tokens), random.Random(7)
    padded = real = turn = 0
    for number, tokens in enumerate(lengths):
        batcher.add([(number, tokens)], rng.randrange(lanes), float(number))
        if len(batcher) < 2000:
            continue
        while len(batcher) > 2000 - 256:  # a slice arrives while some batches run
            batch = batcher.pop(turn % lanes, limits, float(number))
            padded, real, turn = (
                padded + max(lengths[item] for item in batch.items) * len(batch.items),
                real + batch.tokens,
                turn + 1,
            )
    assert real > 0.8 * sum(lengths)
    assert padded / real <= 1.10
    assert real / turn > 0.8 * limits.max_tokens  # nor is it bought with small batches


def test_nobody_is_passed_over_for_better_neighbours() -> None:
    """One odd length among endless alike ones: its batch comes once it is the oldest."""
    batcher, limits = MicroBatcher[str](1), Limits(8, 80)
    batcher.add([("alike", 10)] * 16 + [("odd", 77)] + [("alike", 10)] * 8, 0, 0.0)
    taken = []
    for now_s in accumulate([1.0] * 8):
        taken.append(batcher.pop(0, limits, now_s).items)
        batcher.add([("alike", 10)] * 8, 0, now_s)
    assert ["odd"] in taken[:4]


def test_where_texts_share_rows_they_go_in_the_order_of_their_arrival() -> None:
    batcher = MicroBatcher[int](2, packs=True)
    for item, tokens in enumerate((5, 90, 6, 400, 7)):
        batcher.add([(item, tokens)], 0, float(item))
    batcher.add([(9, 3), (10, 30)], 1, 0.5)
    assert batcher.pop(0, Limits(8, 101), 6.0) == Batch([0, 1, 2], 101, waited_s=6.0)
    assert batcher.pop(0, Limits(8, 101, spare_tokens=20), 6.0).items == [3]  # longer than the budget: alone
    assert batcher.pop(0, Limits(8, 101, spare_tokens=20), 6.0) == Batch([4, 9], 10, waited_s=5.5)  # another lane rides
    assert (len(batcher), batcher.tokens, batcher.lanes[1].oldest_s) == (1, 30, 0.5)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 120)), max_size=60), some_limits)
def test_packed_batches_hold_every_item_once_in_order_within_the_budget(
    arrivals: list[tuple[int, int]], limits: Limits
) -> None:
    batcher = MicroBatcher[tuple[int, int]](3, packs=True)
    for number, (lane, tokens) in enumerate(arrivals):
        batcher.add([((number, tokens), tokens)], lane, float(number))
    taken: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for lane in taken:
        while len(batcher.lanes[lane]):
            batch = batcher.pop(lane, limits, 100.0)
            assert batch.tokens == sum(tokens for _, tokens in batch.items)
            assert len(batch.items) == 1 or (
                batch.tokens <= limits.max_tokens and len(batch.items) <= limits.max_events
            )
            for number, _ in batch.items:
                taken[arrivals[number][0]].append(number)
    for lane, numbers in taken.items():
        assert numbers == [number for number, (of, _) in enumerate(arrivals) if of == lane]
