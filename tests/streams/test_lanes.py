"""Whose turn it is: the highest lane, in it who waits longest, and nobody is passed over for ever."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hypothesis import given
from hypothesis import strategies as st

from streams.lanes import MAX_PASSED_OVER, Candidate, Turns


def test_nobody_waits() -> None:
    assert Turns[str]().choose([]) is None


def test_the_highest_lane_goes_first_however_long_others_wait() -> None:
    waiting = [Candidate("bulk", 2, 0.0), Candidate("risk", 0, 9.0), Candidate("chat", 1, 5.0)]
    assert Turns[str]().choose(waiting) == waiting[1]


def test_inside_a_lane_who_waits_longest_goes_first() -> None:
    waiting = [Candidate("a", 1, 5.0), Candidate("b", 1, 4.0), Candidate("c", 1, 6.0)]
    assert Turns[str]().choose(waiting) == waiting[1]


class World:
    """Queues by lane, what waits in each since when, and the turns of others since it last had one.

    `behind` counts those of older queues of its own lane, which is as it should be, `passed_over` all others.
    """

    def __init__(self, lanes: Sequence[int]) -> None:
        self.turns = Turns[int]()
        self.lanes = lanes
        self.waiting: list[list[float]] = [[] for _ in lanes]
        self.passed_over, self.behind = [0] * len(lanes), [0] * len(lanes)
        self.now_s = 0.0

    def arrive(self, queues: Collection[int]) -> None:
        for queue in queues:
            self.now_s += 1
            self.waiting[queue].append(self.now_s)

    def turn(self) -> int | None:
        """Whose it was."""
        candidates = [Candidate(key, self.lanes[key], items[0]) for key, items in enumerate(self.waiting) if items]
        chosen = self.turns.choose(candidates)
        if chosen is None:
            return None
        self.waiting[chosen.key].pop(0)
        for one in candidates:
            if one.key == chosen.key:
                self.passed_over[one.key] = self.behind[one.key] = 0
            elif one.lane == chosen.lane and one.oldest_s > chosen.oldest_s:
                self.behind[one.key] += 1
            else:
                self.passed_over[one.key] += 1
        return chosen.key


def test_the_lowest_lanes_get_their_turns_under_an_endless_stream_of_the_highest() -> None:
    world = World([0, 1, 2])
    world.arrive([1] * 5 + [2] * 5)
    taken = []
    for _ in range(2 * MAX_PASSED_OVER + 4):
        world.arrive([0])
        taken.append(world.turn())
    assert taken == [*[0] * MAX_PASSED_OVER, 1, 2] * 2


def test_who_is_served_has_no_claim_left() -> None:
    world = World([0, 2])
    world.arrive([1])
    for _ in range(MAX_PASSED_OVER):
        world.arrive([0])
        assert world.turn() == 0
    assert world.turn() == 1
    world.arrive([1, 0])
    assert world.turn() == 0


arrivals_by_turn = st.lists(st.sets(st.integers(0, 8)), max_size=120)


@given(arrivals_by_turn, st.integers(0, 30))
def test_nobody_is_passed_over_more_than_a_few_times(arrivals: list[set[int]], backlog: int) -> None:
    """One queue a lane, under any pattern of arrivals: others that starve too may each have a turn before and after."""
    world = World(range(9))
    world.arrive([queue for queue in range(9) for _ in range(backlog)])
    for queues in arrivals:
        world.arrive(queues)
        world.turn()
        assert max(world.passed_over) <= MAX_PASSED_OVER + 2 * 8


@given(arrivals_by_turn, st.integers(0, 30))
def test_nor_when_several_models_have_a_queue_in_each_lane(arrivals: list[set[int]], backlog: int) -> None:
    """While a queue waits behind its elders, lower lanes go on to have the turns they starve for."""
    world = World([key % 3 for key in range(9)])
    world.arrive([queue for queue in range(9) for _ in range(backlog)])
    for queues in arrivals:
        world.arrive(queues)
        world.turn()
        for passed_over, behind in zip(world.passed_over, world.behind, strict=True):
            assert passed_over <= MAX_PASSED_OVER + 2 * 8 + behind
