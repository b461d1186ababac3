from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.datasets import normalised
from models.learning.curation import Curated
from models.learning.splits import split_by_time


def row(number: int, text: str, time_s: float, conversation: str | None = None) -> Curated:
    return Curated(f"chat/0/{number}", text, "fee", 1.0, time_s, "chat", ("ann",), conversation)


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["my card was declined", "My card  was declined", "why a fee", "hello there", "谢谢你的帮助"]),
        st.integers(0, 6),
        st.sampled_from([None, "c1", "c2", "c3"]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=25)
@given(ROWS, st.floats(0.05, 0.95))
def test_every_row_has_one_side_and_nothing_is_on_both(rows: list[tuple[str, int, str | None]], share: float) -> None:
    curated = [row(number, *one) for number, one in enumerate(rows)]
    train, recent, leaks, cut_s = split_by_time(curated, share)
    assert sorted(one.key for one in (*train, *recent, *leaks)) == sorted(one.key for one in curated)
    texts = {normalised(one.text) for one in train}
    conversations = {one.conversation for one in train if one.conversation}
    if cut_s is None:
        assert not recent and len({one.event_time_s for one in curated}) <= 1
        return
    assert train and all(one.event_time_s < cut_s for one in train)
    assert all(one.event_time_s >= cut_s for one in (*recent, *leaks))
    assert not [one for one in recent if normalised(one.text) in texts or one.conversation in conversations]
    assert all(normalised(one.text) in texts or one.conversation in conversations for one in leaks)
    assert split_by_time(curated[::-1], share) == (train, recent, leaks, cut_s)


def test_near_copies_of_what_is_learned_are_not_measured_on() -> None:
    said = "your parcel is held at the depot, pay the customs fee of 2.99 here"
    rows = [row(n, f"{n} quite another matter number {n * 7919}", n) for n in range(8)]
    rows += [row(10, said, 1.5), row(11, said + " now", 8), row(12, said + " today", 9), row(13, "what is my limit", 9)]
    train, recent, leaks, cut_s = split_by_time(rows, 0.5)
    assert cut_s == 5
    assert [one.key for one in leaks] == ["chat/0/11", "chat/0/12"]
    assert [one.key for one in recent] == ["chat/0/5", "chat/0/6", "chat/0/7", "chat/0/13"]
    assert len(train) == 6


def test_the_share_is_that_of_the_rows() -> None:
    rows = [row(n, f"{n:03} " + chr(97 + n % 26) * 30 + str(n), n) for n in range(50)]
    parts = split_by_time(rows, 0.3)
    assert (len(parts.train), len(parts.recent) + len(parts.leaks)) == (35, 15)


@pytest.mark.parametrize("share", [0, 1, -0.5, 2])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="recent_share must lie between 0 and 1"):
        split_by_time([row(1, "a", 1)], share)
