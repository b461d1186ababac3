from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from models.learning.curation import Curated, CurationSettings
from models.learning.opinions import Opinion
from models.learning.poisoning import bursts, within_shares


def opinion(annotator: str, time_s: float, source: str = "news") -> Opinion:
    return Opinion("risk", f"news/0/{time_s}", "a text", "scam", annotator, time_s, time_s, source)


TIMES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.sampled_from(["news", "chat"])), max_size=25)


@settings(deadline=None, max_examples=40)
@given(TIMES, st.integers(1, 6), st.integers(1, 6), st.integers(1, 20))
def test_what_is_in_a_crowded_window_and_nothing_else_is_a_burst(
    rows: list[tuple[str, int, str]], annotator: int, source: int, window_s: int
) -> None:
    opinions = [opinion(name, time_s, where) for name, time_s, where in rows]
    found = bursts(opinions, CurationSettings(burst_annotator=annotator, burst_source=source, burst_window_s=window_s))

    def crowded(row: int, field: int, most: int) -> bool:
        same = [one[1] for one in rows if one[field] == rows[row][field]]
        windows = [start for start in same if start <= rows[row][1] <= start + window_s]
        return any(sum(start <= time_s <= start + window_s for time_s in same) > most for start in windows)

    expected = {row for row in range(len(rows)) if crowded(row, 0, annotator) or crowded(row, 2, source)}
    assert set(found) == expected


def test_a_burst_says_whose_it_is_and_trusted_annotators_have_none() -> None:
    opinions = [opinion("eve", time_s) for time_s in range(5)] + [opinion("ann", 100 * time_s) for time_s in range(5)]
    found = bursts(opinions, CurationSettings(burst_annotator=4, burst_window_s=60))
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert found[0] == "annotator 'eve': more than 4 labels within 60 s"
    trusting = CurationSettings(burst_annotator=4, burst_window_s=60, trusted=frozenset({"eve"}))
    assert bursts(opinions, trusting) == {}


ROWS = st.lists(
    st.tuples(
        st.sets(st.sampled_from("abcd"), min_size=1, max_size=3),
        st.sampled_from(["scam", "ham"]),
        st.sampled_from(["news", "chat"]),
        st.floats(0.1, 1),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=40)
@given(ROWS, st.integers(0, 20), st.integers(0, 5), st.floats(0.05, 0.6), st.floats(0.1, 1))
def test_nobody_has_more_than_a_share_of_any_label(
    rows: list[tuple[set[str], str, str, float]], taught: int, free: int, annotator_share: float, source_share: float
) -> None:
    curated = [
        Curated(f"k{number}", "text", label, weight, number, source, tuple(sorted(names)))
        for number, (names, label, source, weight) in enumerate(rows)
    ]
    knobs = CurationSettings(
        annotator_share=annotator_share, source_share=source_share, free_texts=free, trusted=frozenset({"d"})
    )
    kept, aside = within_shares(curated, {"scam": taught}, knobs)
    assert sorted([row.key for row in kept] + [one.key for one in aside]) == sorted(row.key for row in curated)
    assert all(one.reason == "share" and one.quarantined for one in aside)
    for label, more in (("scam", taught), ("ham", 0)):
        its = [row for row in kept if row.label == label]
        texts = len(its) + more
        for name in "abc":
            part = sum(1 / len(row.annotators) for row in its if name in row.annotators)
            assert part <= max(free, annotator_share * texts) + 1e-6
        for _, count in Counter(row.source for row in its).items():
            assert count <= max(free, source_share * texts)


def test_no_more_goes_than_has_to_and_the_firmest_stay() -> None:
    """Of 40 texts taught, one annotator may add ten: a fifth of fifty. The second opinion and the surest stay."""
    rows = [Curated(f"k{n}", f"t{n}", "scam", 0.5 + n / 100, n, "news", ("eve",)) for n in range(20)]
    rows[3] = Curated("k3", "t3", "scam", 0.5, 3, "news", ("ann", "eve"))
    kept, aside = within_shares(rows, {"scam": 40}, CurationSettings(annotator_share=0.2, free_texts=0))
    assert {row.key for row in kept} == {"k3"} | {f"k{n}" for n in range(11, 20)}
    assert len(aside) == 10
    assert "annotator 'eve': more than" in aside[0].detail


def test_a_new_label_may_begin_with_one_annotator() -> None:
    rows = [Curated(f"k{n}", f"t{n}", "refund", 1.0, n, "chat", ("ann",)) for n in range(30)]
    kept, _ = within_shares(rows, {"scam": 1000}, CurationSettings())
    assert len(kept) == 10
    assert len(within_shares(rows, {}, CurationSettings(trusted=frozenset({"ann"}), source_share=1))[0]) == 30
