import math
import random
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events import Observation
from streams.settings import SurgeSettings, load_settings
from streams.surge_codec import precedence
from streams.surge_rule import negative_binomial_tail
from streams.surges import SurgeChange, SurgeDetector

NOW_S = 1_700_000_000 // 300 * 300
SETTINGS = SurgeSettings(
    task="sentiment",
    label="negative",
    bucket_s=300,
    window_buckets=6,
    baseline_buckets=96,
    min_support=6,
    ratio=3.0,
    significance=0.02,  # so that a burst at the very beginning of a log counts, which the shipped value does not let it
    resolve_ratio=1.5,
    cooldown_s=1800,
    lateness_s=60,
    max_entities=20_000,
    max_state_mib=64,
)
# Small numbers, so that short random logs open, resolve, cool down, expire and push one another out.
TIGHT = SETTINGS.model_copy(
    update={
        "bucket_s": 10,
        "window_buckets": 2,
        "baseline_buckets": 5,
        "min_support": 2,
        "ratio": 1.5,
        "significance": 0.2,
        "resolve_ratio": 0.8,
        "cooldown_s": 25,
        "lateness_s": 12,
        "max_entities": 3,
    }
)

Tick = float
Action = Observation | Tick
Log = list[Action]


def obs(time_s: float, entity: str = "ACME", hit: bool = True, score: float = 0.9, text: str = "bad") -> Observation:
    return Observation(
        id=f"news/0/{time_s}",
        entity=entity,
        event_time_s=time_s,
        hit=hit,
        score=score,
        text=text,
        release="sentiment-1",
    )


def apply(detector: SurgeDetector, offset: int, action: Action) -> list[SurgeChange]:
    if isinstance(action, dict):
        return detector.observe(offset, action)
    return detector.advance(offset, "news/0", action)


def run(
    log: Sequence[Action], settings: SurgeSettings = SETTINGS, detector: SurgeDetector | None = None
) -> list[SurgeChange]:
    detector = detector or SurgeDetector(settings)
    return [change for offset, action in enumerate(log) for change in apply(detector, offset, action)]


def burst(time_s: float, hits: int, entity: str = "ACME", every_s: float = 10) -> Log:
    return [obs(time_s + i * every_s, entity) for i in range(hits)]


def neutral(from_s: float, to_s: float, entity: str = "ACME", every_s: float = 60) -> Log:
    return [obs(from_s + i * every_s, entity, hit=False) for i in range(int((to_s - from_s) / every_s))]


def states(changes: list[SurgeChange]) -> list[tuple[str, str]]:
    return [(change.entity, change.state) for change in changes]


def test_quiet_then_burst_opens_once_and_resolves() -> None:
    burst_s = NOW_S + 6 * 3600
    log = [
        *neutral(NOW_S, burst_s),
        *burst(burst_s, 12),
        *neutral(burst_s + 120, burst_s + 7200),
    ]
    opened, resolved = run(log)
    assert (opened.state, resolved.state) == ("open", "resolved")
    assert opened.alert_id == resolved.alert_id
    assert opened.output_id != resolved.output_id
    assert opened.event_time_s == burst_s + 50  # the sixth hit
    assert (opened.counts["hits"], opened.counts["p_value"] < 0.02, opened.severity) == (6, True, "high")
    # The hits fell into one bucket: it leaves the window when the sixth bucket after it closes.
    assert resolved.event_time_s == burst_s + 7 * 300 + SETTINGS.lateness_s
    assert (resolved.counts["hits"], resolved.release) == (0, "sentiment-1")


def test_support_under_the_minimum_does_not_open() -> None:
    assert run(burst(NOW_S, SETTINGS.min_support - 1)) == []


def test_an_entity_never_seen_before_opens_at_minimum_support() -> None:
    others = neutral(NOW_S, NOW_S + 86_400, "OTHER")
    (opened,) = run([*others, *burst(NOW_S + 86_400, SETTINGS.min_support, "FRESH")])
    assert (opened.entity, opened.counts["hits"]) == ("FRESH", SETTINGS.min_support)
    assert opened.counts["expected"] == pytest.approx(0.5 * 6 / 96)


def test_heavy_neutral_coverage_is_no_surge_and_does_not_hide_one() -> None:
    crowd = [obs(NOW_S + i, hit=False) for i in range(3600)]
    assert run(crowd) == []
    (opened,) = run([*crowd, *burst(NOW_S + 3600, 6)])
    assert opened.counts["total"] > 1000


def test_a_high_rate_is_the_entitys_own_normal() -> None:
    steady = [obs(NOW_S + 3600 + i * 60) for i in range(8 * 60)]
    settings = SETTINGS.model_copy(update={"min_support": 31})  # past the first window, which has no baseline
    assert run([*neutral(NOW_S, NOW_S + 3600, "OTHER"), *steady], settings)[2:] == []
    end_s = NOW_S + 3600 + 8 * 3600
    assert states(run([*steady, *burst(end_s, 200, every_s=2)], settings))[-1] == ("ACME", "open")


def test_a_late_observation_is_counted_and_changes_nothing() -> None:
    detector = SurgeDetector(SETTINGS)
    run([*burst(NOW_S, 5), obs(NOW_S + 300 + 59, "OTHER")], detector=detector)
    detector.changed()
    assert detector.observe(6, obs(NOW_S + 299)) != []  # the bucket is open until the watermark passes its end
    assert detector.observe(7, obs(NOW_S + 300 + 60, "OTHER")) == []
    detector.changed()
    assert detector.observe(8, obs(NOW_S + 299)) == []
    assert (detector.late, detector.changed()) == (1, {})
    assert orjson.loads(detector.meta())["next_offset"] == 9


def test_no_new_surge_until_the_cooldown_has_passed() -> None:
    settings = SETTINGS.model_copy(update={"window_buckets": 1, "cooldown_s": 1800.0})
    again_s = NOW_S + 900
    log = [*burst(NOW_S, 6), *neutral(NOW_S + 60, again_s), *burst(again_s, 20)]
    assert states(run(log, settings)) == [("ACME", "open"), ("ACME", "resolved")]
    after_s = NOW_S + 50 + 1800
    changes = run([*log, *neutral(again_s + 200, after_s), *burst(after_s, 40, every_s=1)], settings)
    assert [change.state for change in changes] == ["open", "resolved", "open"]
    assert changes[2].event_time_s - changes[0].event_time_s >= settings.cooldown_s
    assert len({change.output_id for change in changes}) == 3


def test_entities_are_independent_and_a_quiet_one_resolves_as_others_go_on() -> None:
    log = [*burst(NOW_S, 6, "B"), *burst(NOW_S + 60, 6, "A"), *neutral(NOW_S + 120, NOW_S + 7200, "C")]
    changes = run(log)
    assert states(changes) == [("B", "open"), ("A", "open"), ("A", "resolved"), ("B", "resolved")]
    assert changes[2].event_time_s == changes[3].event_time_s


def test_an_idle_tick_resolves() -> None:
    detector = SurgeDetector(SETTINGS)
    run(burst(NOW_S, 6), detector=detector)
    assert detector.open_surges == 1
    assert detector.advance(6, "news/0", NOW_S + 3600)[0].state == "resolved"
    assert detector.advance(6, "news/0", NOW_S + 9999) == []
    assert detector.open_surges == 0


def test_evidence_is_the_best_of_the_window_cut_to_length() -> None:
    log: Log = [obs(NOW_S + i, score=0.5 + i / 100, text="x" * 1000) for i in range(6)]
    (opened,) = run(log)
    assert [headline["score"] for headline in opened.evidence] == pytest.approx([0.55, 0.54, 0.53, 0.52, 0.51])
    assert {len(headline["text"]) for headline in opened.evidence} == {280}


def test_severity_grows_with_the_ratio() -> None:
    def severity(past: int) -> str:
        steady = [obs(NOW_S + i * 28_800 / past) for i in range(past)]
        ready = SETTINGS.model_copy(update={"min_support": 20})
        return run([*steady, *burst(NOW_S + 28_800, 60, every_s=1)], ready)[0].severity

    assert [severity(past) for past in (5, 40, 90)] == ["high", "medium", "low"]


@pytest.mark.parametrize("time_s", [631_152_000, 631_152_000.123456, 4e9 + 0.1, -1.5, 1e15])
def test_any_time_that_intake_lets_through(time_s: float) -> None:
    changes = run([*burst(time_s, 6, every_s=0), time_s + 1e6])
    assert [change.state for change in changes] == ["open", "resolved"]


def test_no_room_is_made_by_dropping_a_surge() -> None:
    settings = SETTINGS.model_copy(update={"max_entities": 1})
    detector = SurgeDetector(settings)
    log = [*burst(NOW_S, 6, "A"), *burst(NOW_S + 60, 6, "B"), *burst(NOW_S + 5400, 6, "B")]
    assert states(run(log, detector=detector)) == [("A", "open"), ("A", "resolved"), ("B", "open")]
    assert detector.entities == 1


def test_the_tail_is_that_of_the_definition() -> None:
    def chance(hits: int, shape: float, mean: float) -> float:
        ways = math.lgamma(hits + shape) - math.lgamma(shape) - math.lgamma(hits + 1)
        return math.exp(ways + shape * math.log(shape / (shape + mean)) + hits * math.log(mean / (shape + mean)))

    for shape, mean in ((0.5, 0.03), (0.5, 0.5), (3.5, 3.7), (200.5, 40.0)):
        for hits in (0, 1, 6, 40, 90):
            below = math.fsum(chance(k, shape, mean) for k in range(hits))
            assert negative_binomial_tail(hits, shape, mean) == pytest.approx(1 - below, abs=1e-13)
    assert 0 < negative_binomial_tail(40, 2.5, 0.5) < 1e-20


def test_the_tail_of_a_long_baseline_is_that_of_a_poisson() -> None:
    below = math.fsum(math.exp(k * math.log(4.0) - 4.0 - math.lgamma(k + 1)) for k in range(9))
    assert negative_binomial_tail(9, 1e7, 4.0) == pytest.approx(1 - below, rel=1e-4)


def test_a_state_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ValueError, match=r"'ACME'.*empty the surge-state topic"):
        SurgeDetector.restored(SETTINGS, {"ACME": b"{}"}, None)
    with pytest.raises(ValueError, match="progress record"):
        SurgeDetector.restored(SETTINGS, {}, b"[]")


@dataclass
class Store:
    """What Kafka holds: the alerts, the compacted state topic, and the committed offset."""

    alerts: list[SurgeChange] = field(default_factory=list)
    states: dict[str, bytes] = field(default_factory=dict)
    meta: bytes | None = None
    committed: int = 0

    def round(self, detector: SurgeDetector, log: Log, to: int, writes: int | None) -> bool:
        """Process up to offset `to` and persist; stops after that many writes, as if the process died there."""
        alerts = [c for offset in range(self.committed, to) for c in apply(detector, offset, log[offset])]
        left = len(log) * 100 if writes is None else writes
        self.alerts += alerts[:left]
        left -= len(alerts)
        for name, data in list(detector.changed().items())[: max(left, 0)]:
            left -= 1
            if data is None:
                self.states.pop(name, None)
            else:
                assert name not in self.states or precedence(data) >= precedence(self.states[name])
                self.states[name] = data
        if left >= 1:
            assert self.meta is None or precedence(detector.meta()) >= precedence(self.meta)
            self.meta = detector.meta()
        if left >= 2:
            self.committed = to
        return left >= 2

    def final(self) -> tuple[list[SurgeChange], dict[str, object], dict[str, object]]:
        seen: dict[str, SurgeChange] = {}
        for change in self.alerts:
            assert seen.setdefault(change.output_id, change) == change
        read = {name: orjson.loads(data)["state"] for name, data in self.states.items()}
        meta = orjson.loads(self.meta or b"{}")
        meta.pop("epoch")  # counts the recoveries
        return list(seen.values()), read, meta


def process(log: Log, settings: SurgeSettings, rounds: list[tuple[int, int | None]]) -> Store:
    """Rounds of (events, writes before the crash or None), with a recovery after each crash; then the rest at once.

    An empty round ends it: that one writes the last tombstones.
    """
    store, detector = Store(), SurgeDetector(settings)
    for events, writes in [*rounds, (len(log), None), (0, None)]:
        to = min(store.committed + events, len(log))
        if not store.round(detector, log, to, writes):
            detector = SurgeDetector.restored(settings, store.states, store.meta)
    return store


@st.composite
def logs(draw: st.DrawFn, settings: SurgeSettings = TIGHT) -> Log:
    time_s, log = float(NOW_S), list[Action]()
    steps = st.one_of(st.floats(0, 3), st.floats(0, 3), st.floats(-40, 40), st.sampled_from([150.0, 15.0]))
    for step_s in draw(st.lists(steps, min_size=5, max_size=80)):
        at_s = time_s + step_s
        time_s = max(time_s, at_s)
        if draw(st.integers(0, 9)) == 0:
            log.append(at_s)
        else:
            log.append(obs(at_s, draw(st.sampled_from("ABCDE")), draw(st.booleans()), draw(st.floats(0, 1))))
    return log


@st.composite
def logs_of_bursts(draw: st.DrawFn) -> Log:
    """Runs of one entity, so that surges are common."""
    time_s, log = float(NOW_S), list[Action]()
    for entity in draw(st.lists(st.sampled_from("ABCDE"), min_size=3, max_size=15)):
        for _ in range(draw(st.integers(1, 8))):
            time_s += draw(st.sampled_from([0.0, 0.5, 4.0, 11.0]))
            log.append(obs(time_s - draw(st.sampled_from([0, 0, 9, 30])), entity, draw(st.integers(0, 3)) > 0))
        time_s += draw(st.sampled_from([0.0, 10.0, 30.0, 100.0]))
    return log


any_log = st.one_of(logs(), logs_of_bursts())
crashes = st.lists(st.tuples(st.integers(1, 30), st.none() | st.integers(0, 12)), max_size=8)


@given(log=any_log, rounds=crashes, room=st.integers(1, 6), mib=st.sampled_from([64, 0.003, 0.006, 0.012]))
def test_crashes_and_batches_leave_no_trace(
    log: Log, rounds: list[tuple[int, int | None]], room: int, mib: float
) -> None:
    settings = TIGHT.model_copy(update={"max_entities": room, "max_state_mib": mib})
    assert process(log, settings, rounds).final() == process(log, settings, []).final()


EVICTED_WITH_A_PAST: Log = [  # without its past, the hits at the end would be a surge
    *burst(NOW_S, 14, "A", every_s=5),
    *burst(NOW_S + 66, 2, "A", every_s=1),
    obs(NOW_S + 68, "B"),
    obs(NOW_S + 69, "C", hit=False),
]
BACK_FROM_A_SURGE: Log = [  # A is dropped after B, although its last observation is older
    *burst(NOW_S, 5, "A", every_s=1),
    NOW_S + 45.0,  # resolves
    obs(NOW_S + 46, "B", hit=False),
    NOW_S + 60.0,  # ends the cool-down
    obs(NOW_S + 61, "C", hit=False),
]
EXPIRED_AND_BACK: Log = [
    *burst(NOW_S, 3, "A"),
    obs(NOW_S + 500, "B"),
    *burst(NOW_S + 501, 5, "A", every_s=1),
    obs(NOW_S + 600, "B"),
]


@pytest.mark.parametrize(
    ("log", "room"),
    [(EVICTED_WITH_A_PAST, 1), (BACK_FROM_A_SURGE, 2), (EXPIRED_AND_BACK, 2)],
    ids=["past", "back", "gone"],
)
def test_every_single_crash_point_leaves_no_trace(log: Log, room: int) -> None:
    settings = TIGHT.model_copy(update={"max_entities": room, "min_support": 5, "cooldown_s": 50})
    uncut = process(log, settings, []).final()
    for first in range(len(log)):
        for second in range(1, len(log) - first + 1):
            for writes in range(7):
                before: list[tuple[int, int | None]] = [(first, None)] if first else []
                assert process(log, settings, [*before, (second, writes)]).final() == uncut


@given(log=any_log, seen=st.integers(0, 80))
def test_offsets_seen_before_change_nothing(log: Log, seen: int) -> None:
    detector = SurgeDetector(TIGHT)
    run(log, detector=detector)
    for _ in range(2):  # the second round writes the tombstones
        detector.changed()
    meta = detector.meta()
    assert run(log[:seen], detector=detector) == []
    assert (detector.changed(), detector.meta()) == ({}, meta)


@given(log=any_log, room=st.integers(1, 4))
def test_state_is_bounded(log: Log, room: int) -> None:
    settings = TIGHT.model_copy(update={"max_entities": room})
    store = Store()
    detector = SurgeDetector(settings)
    for to in range(1, len(log) + 1):
        store.round(detector, log, to, None)
        assert detector.entities <= room
    store.round(detector, log, len(log), None)
    _, final, _ = store.final()
    assert len(final) <= room
    for state in final.values():
        assert isinstance(state, dict)
        assert len(state["counts"]) <= 2 + 5 + 2 + 2  # window, baseline, ahead of the watermark, pruned on the next
        assert len(state["headlines"]) <= 60


@given(log=any_log)
def test_surges_open_and_resolve_in_turn_and_keep_the_cooldown(log: Log) -> None:
    last: dict[str, SurgeChange] = {}
    changes = run(log, TIGHT)
    assert len({change.output_id for change in changes}) == len(changes)
    for change in changes:
        before = last.get(change.entity)
        assert change.state == ("open" if before is None or before.state == "resolved" else "resolved")
        if change.state == "open":
            opens = [c for c in changes if c.entity == change.entity and c.state == "open"]
            times = [c.event_time_s for c in opens]
            assert all(b - a >= TIGHT.cooldown_s for a, b in pairwise(times))
        last[change.entity] = change


@given(every_s=st.floats(360, 3600), start_s=st.floats(0, 300))
def test_a_low_constant_rate_never_fires(every_s: float, start_s: float) -> None:
    assert run([obs(NOW_S + start_s + i * every_s) for i in range(200)]) == []


def test_the_shipped_significance_asks_for_a_history() -> None:
    settings = load_settings(env={}).surge
    cold = [NOW_S, *burst(NOW_S + 60, settings.min_support, "NEW")]
    assert run(cold, settings) == []
    warm = [NOW_S, *burst(NOW_S + 8 * 3600, settings.min_support, "NEW")]
    assert states(run(warm, settings)) == [("NEW", "open")]


def from_partition(partition: int, log: Log) -> list[Observation]:
    """The observations of a log as those of one source partition, its entities known nowhere else."""
    return [
        Observation(
            {**action, "id": f"news/{partition}/{place}/observation/0", "entity": f"{partition}-{action['entity']}"}
        )
        for place, action in enumerate(log)
        if isinstance(action, dict)
    ]


@given(any_log, any_log, st.randoms(use_true_random=False))
def test_how_partitions_are_interleaved_changes_nothing(one: Log, other: Log, rng: random.Random) -> None:
    """A replay of a backlog reads partitions at different speeds; entities at home in one of them must not notice."""
    settings = TIGHT.model_copy(update={"max_entities": 1000})
    first, second = from_partition(0, one), from_partition(1, other)

    def seen(log: list[Observation]) -> list[tuple[str, float]]:
        return sorted((change.output_id, change.event_time_s) for change in run(log, settings))

    mixed, rest = list[Observation](), [list(first), list(second)]
    while any(rest):
        mixed.append(rng.choice([part for part in rest if part]).pop(0))
    assert seen(mixed) == seen([*first, *second]) == seen([*second, *first])


# ---- hostile input


def hostile(count: int, seed: int) -> list[Observation]:
    """Made-up entities and source partitions, times from 1970 to five minutes ahead, and one entity again and again."""
    rng, found = random.Random(seed), list[Observation]()
    for number in range(count):
        time_s = rng.choice([0.0, 1.0, NOW_S + 300.0, NOW_S - 1e9, NOW_S + number, rng.uniform(0, NOW_S)])
        entity = "FLOOD" if number % 3 == 0 else f"K{rng.randrange(30_000)}"
        one = obs(time_s, entity, rng.random() < 0.7, rng.random(), text="\U0001f4a5" * 500)
        found.append({**one, "id": f"news{'x' * rng.randrange(200)}/{rng.randrange(5_000)}/{number}"})
    return found


@pytest.mark.parametrize(("entities", "mib"), [(200, 64), (20_000, 0.3)], ids=["entities", "bytes"])
def test_hostile_keys_and_times_are_held_within_bounds_that_are_counted(entities: int, mib: float) -> None:
    settings = SETTINGS.model_copy(update={"max_entities": entities, "max_state_mib": mib})
    log = hostile(1_500, seed=3)
    detector = SurgeDetector(settings)
    tracemalloc.start()
    for offset, one in enumerate(log):
        detector.observe(offset, one)
        assert detector.entities <= entities
        assert detector.state_bytes <= mib * 2**20
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 2 * mib * 2**20 + 4e6  # with the states before the round, and the clocks of the source partitions
    assert detector.evicted["entities"] > 100 and detector.evicted["origins"] > 100
    records = [data for data in detector.changed().values() if data is not None]
    assert max(len(data) for data in [*records, detector.meta()]) < 1_000_000  # what Kafka takes


def test_what_is_forgotten_follows_from_the_log_alone() -> None:
    settings = SETTINGS.model_copy(update={"max_entities": 100, "max_state_mib": 0.1, "significance": 0.2})
    log: Log = [*hostile(600, seed=4)]
    rng = random.Random(5)
    rounds: list[tuple[int, int | None]] = [(rng.randrange(1, 60), rng.choice([None, rng.randrange(40)])) for _ in log]
    uncut = process(log, settings, [])
    assert uncut.final()[0], "no alert: this would prove nothing"
    assert process(log, settings, rounds[:40]).final() == uncut.final()


def test_an_entity_that_grows_alone_loses_its_earliest_texts_then_its_earliest_buckets() -> None:
    settings = SETTINGS.model_copy(update={"max_state_mib": 0.004})
    detector = SurgeDetector(settings)
    run(burst(NOW_S, 40, every_s=100), detector=detector)
    assert detector.state_bytes <= 0.004 * 2**20
    (record,) = [orjson.loads(data or b"") for data in detector.changed().values()]
    kept = [headline["event_time_s"] for headline in record["state"]["headlines"]]
    assert kept == sorted(kept) and (not kept or kept[-1] == NOW_S + 3900)
    assert record["state"]["counts"][-1][0] == NOW_S + 3900
    assert detector.evicted["texts"] > 0 and detector.evicted["buckets"] == 0 and detector.entities == 1
    quiet = SurgeDetector(settings)
    run([obs(NOW_S + at, hit=False) for at in range(0, 12_000, 100)], detector=quiet)
    assert quiet.state_bytes <= 0.004 * 2**20 and quiet.evicted["buckets"] > 0


def seen_at(place: int, time_s: float, partition: int = 0, index: int = 0, entity: str = "ACME") -> Observation:
    """The observation of an event at this offset of its source partition."""
    return {**obs(time_s, entity), "id": f"news/{partition}/{place}/observation/{index}"}


def known(detector: SurgeDetector) -> dict[str, object]:
    """What is remembered of each entity, without the offsets of the detector's own log."""
    states = {name: orjson.loads(data or b"{}")["state"] for name, data in detector.changed().items()}
    return {name: {**state, "rank": None} if state else state for name, state in states.items()}


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.sampled_from(["A", "B"])), min_size=1, max_size=40),
    st.data(),
)
def test_what_a_source_sends_again_counts_once(events: list[tuple[int, int, str]], data: st.DataObject) -> None:
    """Crashes of the source worker: each time a partition goes back to some offset and sends all from there again."""
    sent = [
        seen_at(place, NOW_S + time_s, partition, entity=entity)
        for place, (partition, time_s, entity) in enumerate(events)
    ]
    log = list(sent)
    for _ in range(data.draw(st.integers(1, 3))):
        crash = data.draw(st.integers(1, len(log)))
        partition = data.draw(st.integers(0, 2))
        of_partition = [one for one in log[:crash] if one["id"].startswith(f"news/{partition}/")]
        again = of_partition[data.draw(st.integers(0, len(of_partition))) :]
        log = log[:crash] + again + log[crash:]
    once, often = SurgeDetector(TIGHT), SurgeDetector(TIGHT)
    assert states(run(sent, TIGHT, once)) == states(run(log, TIGHT, often))
    assert known(once) == known(often)
    assert (often.repeated, once.repeated) == (len(log) - len(sent), 0)


def test_what_came_before_is_known_after_a_crash_too() -> None:
    detector = SurgeDetector(SETTINGS)
    for offset in range(4):
        detector.observe(offset, seen_at(offset, NOW_S + offset))
    records = {name: data for name, data in detector.changed().items() if data is not None}
    again = SurgeDetector.restored(SETTINGS, records, detector.meta())
    assert again.observe(4, seen_at(3, NOW_S + 3)) == []
    assert again.repeated == 1
    again.observe(5, seen_at(4, NOW_S + 4))
    assert orjson.loads(again.changed()["ACME"] or b"")["state"]["counts"] == [[NOW_S, 5, 5]]


def test_several_observations_of_one_event_all_count() -> None:
    detector = SurgeDetector(SETTINGS)
    for offset, index in enumerate((0, 1, 2, 1)):
        detector.observe(offset, seen_at(7, NOW_S, index=index))
    assert detector.repeated == 1


def test_a_source_topic_made_anew_is_not_taken_for_a_repetition() -> None:
    detector = SurgeDetector(SETTINGS)
    detector.observe(0, seen_at(900, NOW_S))
    detector.observe(1, seen_at(0, NOW_S + 1))
    detector.observe(2, seen_at(1, NOW_S + 2))
    assert detector.repeated == 0
