"""When must a worker end because it stands still: decided on what was seen and on a clock that is given, without I/O.

A worker that hangs keeps its partitions and tells nobody. Each dog here watches one way to hang and, once that has
lasted, says what is wrong, for how long, and what to do; `worker` feeds them and ends the process.

Time counts only while somebody watched: a process that was stopped (SIGSTOP, a paused machine) and goes on has not
stood still by its own fault, so between two looks at most `LONGEST_STEP_S` pass. And while no broker answers nothing
can move: then the other dogs wait, and only the limit on that counts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streams.settings import Settings

LONGEST_STEP_S = 3.0  # thrice the time between two looks
LOOP_STALL_S = 10.0
LOOP_LOOK_S = 0.5
OVER_MEMORY_S = 10.0

Ending = Literal["at once", "broker away", "drain"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Why the process must end. `ending` "drain": what is in flight can be finished first."""

    message: str
    ending: Ending = "at once"


@dataclass(frozen=True, slots=True)
class Seen:
    """The worker at one moment.

    Attributes:
        lag: records read or to be read that are not finished.
        done: grows with every slice finished and every batch scored.
        unacknowledged: outputs on their way to the broker; their own limit is `broker.delivery_timeout_s`.
        uncommitted: finished records whose offset is not committed.
        committed: grows with every offset committed.
        settled: member of the group with its partitions assigned, even if these are none.
        broker_answers: any broker answered the last time one was asked.
        memory_mib: resident memory.
        held: nothing can run some model, so its texts wait; their own limit is `models.hold_limit_s`.
    """

    lag: int
    done: int
    unacknowledged: int
    uncommitted: int
    committed: int
    settled: bool
    broker_answers: bool
    memory_mib: float
    held: bool = False


class Holding:
    """For how long something has held without a break."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def look(self, holds: bool, passed_s: float) -> float:
        """Seconds it has held, `passed_s` after the last look."""
        self.seconds = self.seconds + passed_s if holds else 0.0
        return self.seconds


class Watchdogs:
    """Every dog but the one on the event loop, which must not be on it (see `LoopGuard`).

    Args:
        settings: the limits.
        clock: monotonic seconds.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        broker, worker = settings.broker, settings.worker
        self._clock, self._looked_s = clock, clock()
        self._away_limit_s = broker.delivery_timeout_s
        # A member that joins is kept waiting by the group for up to a rebalance of the others.
        self._outside_limit_s = 2 * broker.session_timeout_s + broker.rebalance_timeout_s
        self._stall_limit_s = worker.stall_s
        self._memory_cap_mib = worker.max_memory_mib
        self.away, self.outside, self.idle, self.stuck = Holding(), Holding(), Holding(), Holding()
        self._heavy = Holding()
        self._done = self._committed = -1

    @property
    def stalled_s(self) -> float:
        """For how long there has been work, and none of it got done or committed."""
        return max(self.idle.seconds, self.stuck.seconds)

    def look(self, seen: Seen) -> Alarm | None:
        """Take in what is seen now; the alarm that ends the process, if one must."""
        now_s = self._clock()
        passed_s, self._looked_s = min(now_s - self._looked_s, LONGEST_STEP_S), now_s
        moved, committed = seen.done != self._done, seen.committed != self._committed
        self._done, self._committed = seen.done, seen.committed
        away_s = self.away.look(not seen.broker_answers, passed_s)
        there = seen.broker_answers
        outside_s = self.outside.look(there and not seen.settled, passed_s)
        able = there and seen.settled and not seen.unacknowledged and not seen.held
        idle_s = self.idle.look(able and bool(seen.lag) and not moved, passed_s)
        stuck_s = self.stuck.look(there and seen.settled and bool(seen.uncommitted) and not committed, passed_s)
        heavy_s = self._heavy.look(seen.memory_mib > self._memory_cap_mib, passed_s)
        if away_s > self._away_limit_s:
            return Alarm(
                f"no broker has answered for broker.delivery_timeout_s = {self._away_limit_s:g} s; look after the "
                "brokers, the network and the certificates: workers start again by themselves",
                "broker away",
            )
        if outside_s > self._outside_limit_s:
            return Alarm(
                f"not in the consumer group for {self._outside_limit_s:g} s (2 x broker.session_timeout_s + "
                "broker.rebalance_timeout_s) though the broker answers; look for a group member that hangs"
            )
        if idle_s > self._stall_limit_s:
            return Alarm(
                f"{seen.lag} records waiting and none finished for worker.stall_s = {self._stall_limit_s:g} s; the "
                "next worker reads them again; if it stalls too, look at the model (inference_seconds) and the topic"
            )
        if stuck_s > self._stall_limit_s:
            return Alarm(
                f"{seen.uncommitted} records finished and no offset committed for worker.stall_s = "
                f"{self._stall_limit_s:g} s; the next worker does them again; look at the group's coordinator"
            )
        if heavy_s > OVER_MEMORY_S:
            return Alarm(
                f"{seen.memory_mib:.0f} MiB resident for {OVER_MEMORY_S:g} s, above worker.max_memory_mib = "
                f"{self._memory_cap_mib}; raise it if that is what the models need, else report a leak",
                "drain",
            )
        return None


class LoopGuard(threading.Thread):
    """Ends the process when its event loop hangs: a thread, as nothing on the loop could.

    The loop beats (`beat`), the guard counts its own looks since the last beat. So a process that was stopped and goes
    on costs one look, however long that took, and the loop has all the others to beat again.

    Args:
        alarm: called once, from the guard's thread, with what to say.
        limit_s: so long without a beat is a stall.
        look_s: between two looks.
    """

    def __init__(
        self, alarm: Callable[[str], None], limit_s: float = LOOP_STALL_S, look_s: float = LOOP_LOOK_S
    ) -> None:
        super().__init__(name="loop-guard", daemon=True)
        self._alarm, self._limit_s, self._look_s = alarm, limit_s, look_s
        self._looks = 0
        self._ended = threading.Event()

    @property
    def late_s(self) -> float:
        """Time since the last beat, to the nearest look."""
        return self._looks * self._look_s

    def beat(self) -> None:
        """Call on the loop, more often than `limit_s`."""
        self._looks = 0

    def run(self) -> None:
        """Look until told to end, or until the loop has missed too many looks."""
        while not self._ended.wait(self._look_s):
            self._looks += 1
            if self.late_s > self._limit_s:
                self._alarm(
                    f"the event loop has not run for {self._limit_s:g} s; something blocks it: the log's last lines "
                    "before this say what it did; a worker starts again by itself, report it if it comes back"
                )
                return

    def end(self) -> None:
        """Look no more."""
        self._ended.set()


def memory_mib() -> float:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
