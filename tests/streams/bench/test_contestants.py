from __future__ import annotations

import importlib
import warnings

import pytest

from streams.bench.contestants import CONTESTANTS, PEERS, Contestant, choose


def test_all_that_are_installed_take_part() -> None:
    chosen, left_out = choose([], administered=True)
    names = [one.name for one in chosen]
    assert {"streamgauge", "faust", "aiokafka"} <= set(names)
    assert sorted([*names, *left_out]) == sorted(one.name for one in CONTESTANTS)


def test_only_the_peers_that_are_asked_for() -> None:
    chosen, left_out = choose(["aiokafka"], administered=True)
    assert [one.name for one in chosen] == ["streamgauge", "aiokafka"]
    assert left_out["faust"] == "not asked for"


def test_who_needs_administration_is_left_out_on_the_embedded_broker() -> None:
    assert "quix" in choose([], administered=False)[1]


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(ValueError, match="--peer spark: no such peer; there are: faust"):
        choose(["spark"], administered=True)


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda one: one.name)
def test_a_program_fits_the_library_that_is_installed(contestant: Contestant) -> None:
    if contestant.version is None:
        pytest.skip(f"{contestant.distribution} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a peer's libraries say of each other is theirs
        importlib.import_module(f"streams.bench.systems.{contestant.program}")


def test_faust_is_a_peer() -> None:
    assert PEERS[0] == "faust"
