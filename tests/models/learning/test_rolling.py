import numpy as np

from models.learning.drift import Tally
from models.learning.estimated_accuracy import expected_of_scores
from models.learning.rolling import SLOTS, Rolling

WINDOW_S = 120.0


def _events(count: int) -> Tally:
    return Tally({"label": np.array([count, 0])}, expected_of_scores([0.5] * count))


def test_what_is_older_than_the_window_no_longer_counts() -> None:
    rolling = Rolling(WINDOW_S)
    for second in range(0, 600, 10):
        rolling.add(_events(1), second)
    total = rolling.total(599)
    assert total.expected.n == total.counts["label"][0] == SLOTS
    assert rolling.total(599 + WINDOW_S).expected.n == 0


def test_the_order_in_which_it_comes_does_not_matter() -> None:
    seconds = np.random.default_rng(0).uniform(0, 300, 200)
    one, other = Rolling(WINDOW_S), Rolling(WINDOW_S)
    for second in seconds:
        one.add(_events(1), second)
    for second in sorted(seconds):
        other.add(_events(1), second)
    assert one.total(300).expected.n == other.total(300).expected.n > 0


def test_nothing_is_nothing() -> None:
    assert Rolling(WINDOW_S).total(0) == Tally()
