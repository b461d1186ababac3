"""Which way of running a model is trusted, and when it is tried again; how many tokens fit its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.breaker import FIRST_WAIT_S, LONGEST_WAIT_S, Breaker, TokenCap, serving, to_probe

FRACTIONS = st.floats(0, 1, exclude_max=True)


def always(fraction: float) -> Callable[[], float]:
    return lambda: fraction


def waits(breaker: Breaker, illnesses: int) -> list[float]:
    """Seconds from each illness to its probe, every probe failing at once when it is due."""
    found, now_s = [], 0.0
    for _ in range(illnesses):
        breaker.ill(now_s)
        found.append(breaker.probe_at_s - now_s)
        now_s = breaker.probe_at_s
        breaker.probing()
    return found


def test_every_failure_doubles_the_wait_up_to_a_bound() -> None:
    most = 1 - 2**-53
    assert waits(Breaker(True, always(0.0)), 8) == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert waits(Breaker(True, always(most)), 8) == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])


@given(st.lists(FRACTIONS, min_size=1, max_size=30))
def test_a_wait_is_drawn_between_half_and_the_whole_of_its_span(fractions: Sequence[float]) -> None:
    drawn = iter(fractions)
    for place, wait_s in enumerate(waits(Breaker(True, lambda: next(drawn)), len(fractions))):
        span_s = min(FIRST_WAIT_S * 2**place, LONGEST_WAIT_S)
        assert span_s / 2 - 1e-6 <= wait_s <= span_s + 1e-6


def test_who_was_well_for_long_begins_anew_and_who_flaps_does_not() -> None:
    breaker = Breaker(True, always(0.0))
    waits(breaker, 4)
    breaker.well(100.0)
    breaker.ill(101.0)
    assert breaker.probe_at_s - 101.0 == 8.0
    breaker.probing()
    breaker.well(200.0)
    breaker.ill(200.0 + LONGEST_WAIT_S)
    assert breaker.probe_at_s - (200.0 + LONGEST_WAIT_S) == FIRST_WAIT_S / 2


def test_only_what_is_open_and_whose_time_has_come_is_due() -> None:
    breaker = Breaker(True, always(0.0))
    assert not breaker.due(1e9)
    breaker.ill(10.0)
    assert not breaker.due(10.4)
    assert breaker.due(10.5)
    breaker.probing()
    assert not breaker.due(1e9)
    breaker.well(11.0)
    assert not breaker.due(1e9)
    assert Breaker(False, always(0.0)).due(0.0)  # not loaded yet


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["ill", "probe", "pass", "fail"]), st.floats(0, 90))))
def test_the_first_trusted_way_serves_and_only_better_ones_are_probed(steps: list[tuple[int, str, float]]) -> None:
    """Whatever happens in whatever order: no probe before its time, none twice at once, none of what is not needed."""
    ways, now_s = [Breaker(True, always(0.5)), Breaker(False, always(0.5))], 0.0
    for place, step, passed_s in steps:
        now_s += passed_s
        way = ways[place]
        if step == "ill" and way.state == "closed":
            way.ill(now_s)
            assert now_s < way.probe_at_s <= now_s + LONGEST_WAIT_S
        elif step == "probe":
            due = to_probe(ways, now_s)
            for one in due:
                assert ways[one].state == "open" and ways[one].probe_at_s <= now_s
                ways[one].probing()
            assert to_probe(ways, now_s) == []
        elif way.state == "half-open":
            if step == "pass":
                way.well(now_s)
            elif step == "fail":
                way.ill(now_s)
        closed = [one for one, breaker in enumerate(ways) if breaker.state == "closed"]
        assert serving(ways) == (closed[0] if closed else None)
        assert all(one < (closed[0] if closed else len(ways)) for one in to_probe(ways, now_s))


# ---- memory


def test_what_did_not_fit_is_halved_and_grows_back_slowly() -> None:
    cap = TokenCap(65_536)
    assert not cap.binds and cap.allowed(0.0) == 65_536
    cap.exceeded(4096, 0.0)
    assert cap.binds and cap.allowed(0.0) == 2048
    assert cap.allowed(300.0) == 4096
    cap.exceeded(4096, 300.0)
    assert cap.allowed(300.0) == 2048
    assert cap.allowed(300.0 + 4 * 300.0) == 32_768
    assert cap.binds
    assert cap.allowed(300.0 + 5 * 300.0) == 65_536
    assert not cap.binds


@given(st.lists(st.tuples(st.integers(1, 100_000), st.floats(0, 4000)), max_size=20), st.integers(1, 100_000))
def test_the_cap_stays_between_one_and_what_a_batch_may_have(failures: list[tuple[int, float]], most: int) -> None:
    cap, now_s = TokenCap(most), 0.0
    for tokens, passed_s in failures:
        cap.exceeded(tokens, now_s)
        assert 1 <= cap.allowed(now_s) <= max(1, tokens // 2)
        now_s += passed_s
        assert 1 <= cap.allowed(now_s) <= most
