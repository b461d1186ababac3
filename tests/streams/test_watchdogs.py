"""Each watchdog fires after its limit, and is silent where it only looks as if something stood still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from streams.settings import Settings, load_settings
from streams.watchdogs import LONGEST_STEP_S, OVER_MEMORY_S, Alarm, LoopGuard, Seen, Watchdogs, memory_mib
from tests.streams.fakes import Clock

WELL = Seen(
    lag=0, done=0, unacknowledged=0, uncommitted=0, committed=0, settled=True, broker_answers=True, memory_mib=100.0
)
STALLED = replace(WELL, lag=7)
STUCK = replace(WELL, uncommitted=9)
OUTSIDE = replace(WELL, settled=False)
AWAY = replace(WELL, broker_answers=False, lag=7, uncommitted=9, settled=False)
HEAVY = replace(WELL, memory_mib=9000.0)
FOR_EVER_S = 100_000


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(env={})


def watch(settings: Settings, looks: list[tuple[float, Seen]]) -> tuple[Alarm | None, float]:
    """The first alarm and when it came, from what is seen at the end of each span of so many seconds."""
    clock = Clock()
    dogs, started_s = Watchdogs(settings, clock), clock()
    for seconds, seen in looks:
        clock.now_s += seconds
        if alarm := dogs.look(seen):
            return alarm, clock() - started_s
    return None, clock() - started_s


def every_second(seen: Seen, seconds: float) -> list[tuple[float, Seen]]:
    return [(1.0, seen)] * int(seconds)


def limits(settings: Settings) -> dict[Seen, tuple[float, str]]:
    broker, worker = settings.broker, settings.worker
    return {
        STALLED: (worker.stall_s, "7 records waiting and none finished for worker.stall_s = 60 s"),
        STUCK: (worker.stall_s, "9 records finished and no offset committed for worker.stall_s = 60 s"),
        OUTSIDE: (2 * broker.session_timeout_s + broker.rebalance_timeout_s, "not in the consumer group for 120 s"),
        AWAY: (broker.delivery_timeout_s, "no broker has answered for broker.delivery_timeout_s = 120 s"),
        HEAVY: (OVER_MEMORY_S, "9000 MiB resident for 10 s, above worker.max_memory_mib = 8192"),
    }


@pytest.mark.parametrize("seen", [STALLED, STUCK, OUTSIDE, AWAY, HEAVY])
def test_it_fires_after_its_limit_and_says_what_how_long_and_what_to_do(seen: Seen, settings: Settings) -> None:
    limit_s, says = limits(settings)[seen]
    alarm, after_s = watch(settings, every_second(WELL, 100) + every_second(seen, limit_s + 5))
    assert alarm is not None and says in alarm.message
    assert limit_s < after_s - 100 <= limit_s + 2
    what, _, todo = alarm.message.partition("; ")
    assert what and todo


@pytest.mark.parametrize("seen", [STALLED, STUCK, OUTSIDE, AWAY, HEAVY])
def test_a_moment_in_which_all_is_well_begins_the_count_anew(seen: Seen, settings: Settings) -> None:
    limit_s, _ = limits(settings)[seen]
    moved = replace(WELL, done=1, committed=1)
    assert watch(settings, 3 * [*every_second(seen, limit_s - 1), (1.0, moved)])[0] is None


def test_texts_that_are_held_are_no_stall(settings: Settings) -> None:
    """Nothing can run their model: that has a limit of its own."""
    assert watch(settings, every_second(replace(STALLED, held=True), FOR_EVER_S))[0] is None


@pytest.mark.parametrize("seen", [STALLED, STUCK, OUTSIDE, AWAY, HEAVY])
def test_a_process_that_was_stopped_and_goes_on_gets_its_chance(seen: Seen, settings: Settings) -> None:
    """What is seen first after a SIGCONT is as old as the stop was long."""
    limit_s, _ = limits(settings)[seen]
    moved = replace(WELL, done=1, committed=1)
    assert watch(settings, [(1.0, seen), (50 * limit_s, seen), (1.0, moved)])[0] is None
    alarm, _ = watch(settings, [(1.0, seen), (50 * limit_s, seen), *every_second(seen, limit_s)])
    assert alarm is not None, f"it may forgive the stop, but for {LONGEST_STEP_S} s"


def test_an_idle_topic_is_no_stall(settings: Settings) -> None:
    assert watch(settings, every_second(WELL, FOR_EVER_S))[0] is None


def test_a_long_batch_is_no_stall_while_batches_end(settings: Settings) -> None:
    """A slow model needs minutes for the slices in flight; none is finished, but its batches are scored."""
    looks = [(1.0, replace(STALLED, done=second // 50)) for second in range(5000)]
    assert watch(settings, looks)[0] is None


def test_commits_without_finished_work_are_no_progress_of_work(settings: Settings) -> None:
    looks = [(1.0, replace(STALLED, committed=second)) for second in range(100)]
    assert watch(settings, looks)[0] is not None


def test_finished_work_whose_offsets_are_not_committed_is_no_progress_of_commits(settings: Settings) -> None:
    looks = [(1.0, replace(STUCK, lag=7, done=second)) for second in range(100)]
    alarm, _ = watch(settings, looks)
    assert alarm is not None and "no offset committed" in alarm.message


def test_an_outage_waits_for_its_own_limit_and_ends_as_one(settings: Settings) -> None:
    """The other limits are shorter; what stands still in an outage is the outage's fault."""
    limit_s = settings.broker.delivery_timeout_s
    assert watch(settings, every_second(AWAY, limit_s - 1) + every_second(STALLED, 50))[0] is None
    alarm, _ = watch(settings, every_second(AWAY, limit_s + 5))
    assert alarm is not None and alarm.ending == "broker away"


def test_outputs_that_wait_for_the_broker_have_a_limit_of_their_own(settings: Settings) -> None:
    """Brokers that answer and do not acknowledge: too few in sync, a partition without a leader."""
    assert watch(settings, every_second(replace(STALLED, unacknowledged=3), FOR_EVER_S))[0] is None


def test_a_rebalance_of_slow_members_is_no_loss_of_membership(settings: Settings) -> None:
    longest_s = settings.broker.session_timeout_s + settings.broker.rebalance_timeout_s
    assert watch(settings, 10 * (every_second(OUTSIDE, longest_s) + every_second(WELL, 10)))[0] is None


def test_too_much_memory_ends_it_in_order(settings: Settings) -> None:
    alarm, _ = watch(settings, every_second(HEAVY, 20))
    assert alarm is not None and alarm.ending == "drain"


def test_a_spike_of_memory_is_let_through(settings: Settings) -> None:
    assert watch(settings, 100 * (every_second(HEAVY, OVER_MEMORY_S) + every_second(WELL, 1)))[0] is None


def test_the_memory_is_this_process_s_own() -> None:
    before = memory_mib()
    held = bytearray(os.urandom(64)) * 2**20
    assert 40 < memory_mib() - before < 100
    assert len(held) == 64 * 2**20


# ---- the event loop's guard


def test_a_loop_that_does_not_beat_is_told_once() -> None:
    said, fired = list[str](), threading.Event()

    def alarm(message: str) -> None:
        said.append(message)
        fired.set()

    guard = LoopGuard(alarm, limit_s=0.2, look_s=0.02)
    guard.start()
    assert fired.wait(10)
    guard.join(10)
    assert not guard.is_alive()
    assert len(said) == 1 and "the event loop has not run for 0.2 s" in said[0]


def test_a_loop_that_beats_is_left_alone() -> None:
    said = list[str]()
    guard = LoopGuard(said.append, limit_s=0.4, look_s=0.02)
    guard.start()
    late = list[float]()
    for _ in range(40):
        late.append(guard.late_s)
        guard.beat()
        assert not threading.Event().wait(0.02)
    guard.end()
    guard.join(10)
    assert said == []
    assert max(late) <= 0.4


# A worker's loop with the guard on it, as `worker.serve` has it. It beats while `beat` is there, and hangs without.
LOOP = """
import asyncio, sys, time
from pathlib import Path
from streams.exits import end_process
from streams.watchdogs import LoopGuard

async def main():
    guard = LoopGuard(end_process, limit_s=1.0, look_s=0.1)
    guard.start()
    while Path(sys.argv[1]).exists():
        guard.beat()
        print("beat", flush=True)
        await asyncio.sleep(0.1)
    time.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def looping(tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "beat").touch()
    return subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path / "beat")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_hanging_loop_ends_the_process_with_70(looping: subprocess.Popen[str], tmp_path: Path) -> None:
    assert looping.stdout is not None and looping.stdout.readline() == "beat\n"
    (tmp_path / "beat").unlink()
    _, said = looping.communicate(timeout=30)
    assert looping.returncode == 70
    assert "the event loop has not run for 1 s" in said and "ending with code 70" in said


def test_a_process_that_is_stopped_and_continued_goes_on(looping: subprocess.Popen[str], tmp_path: Path) -> None:
    """Stopped for twice the limit, twice: the guard wakes up as early as the loop, and must not be quicker."""
    assert looping.stdout is not None
    for _ in range(2):
        assert looping.stdout.readline() == "beat\n"
        looping.send_signal(signal.SIGSTOP)
        assert not threading.Event().wait(2.0)
        looping.send_signal(signal.SIGCONT)
    for _ in range(15):
        assert looping.stdout.readline() == "beat\n"
    assert looping.poll() is None
    looping.kill()
    looping.communicate()
