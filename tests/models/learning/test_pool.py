import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.learning.pool import Pool


@given(st.lists(st.floats(0, 1), max_size=60), st.integers(0, 10), st.integers(0, 10))
@settings(deadline=None)
def test_it_keeps_the_most_uncertain_and_no_more_than_it_may(uncertain: list[float], most: int, unsure: int) -> None:
    pool: Pool[list[float]] = Pool(most, unsure)
    for one in uncertain:
        pool.offer([one], one)
    assert [one for (one,) in pool.unsure] == sorted(uncertain, reverse=True)[:unsure]
    assert len(pool.sample) == min(most, len(uncertain))
    everything = list(pool)
    assert len({id(one) for one in everything}) == len(everything) <= most + unsure
    assert {id(one) for one in everything} == {id(one) for one in (*pool.sample, *pool.unsure)}


def test_the_sample_is_uniform() -> None:
    drawn = np.zeros(50)
    for seed in range(2000):
        pool: Pool[int] = Pool(5, 3, seed)
        for one in range(50):
            pool.offer(one, one)
        drawn[pool.sample] += 1
    assert abs(drawn - 200).max() < 5 * np.sqrt(200)


def test_emptied_it_begins_anew() -> None:
    pool: Pool[str] = Pool(2, 2)
    pool.offer("old", 0.9)
    pool.empty()
    pool.offer("new", 0.1)
    assert list(pool) == ["new"]
