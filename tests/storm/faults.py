"""Carries out the faults of a plan, one at a time; when `inject` returns, the cause is gone, not yet its effects."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping

from tests.storm.cluster import Cluster, Node, Side
from tests.storm.fleet import Fleet, Machine
from tests.storm.plan import Fault
from tests.storm.proxy import Mode, Proxy
from tests.storm.worker import CLOCK_BACK, CLOCK_FORWARD, MODEL_FAILS, TASK_FAILS

SIGNALS: Mapping[str, int] = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "model-fails": MODEL_FAILS,
    "task-fails": TASK_FAILS,
    "clock-forward": CLOCK_FORWARD,
    "clock-back": CLOCK_BACK,
}
LINES: Mapping[str, Mode] = {"blackhole": "hold", "half-open": "half-open", "slices": "slices", "delay": "delay"}


class Faults:
    """What the faults act on."""

    def __init__(self, cluster: Cluster, fleet: Fleet, proxies: Mapping[Side, Iterable[Proxy]]) -> None:
        self._cluster, self._fleet = cluster, fleet
        self._proxies = {side: list(ones) for side, ones in proxies.items()}
        self._kinds: Mapping[str, Callable[[Fault], Awaitable[None]]] = {
            **dict.fromkeys(SIGNALS, self._signal),
            **dict.fromkeys(LINES, self._bad_lines),
            "pause": self._pause,
            "broker-kill": self._broker_away,
            "broker-down": self._broker_away,
            "broker-restart": self._broker_restart,
            "broker-pause": self._broker_pause,
            "all-down": self._all_down,
            "cut-off": self._cut_off,
            "reset": self._reset,
            "scale": self._scale,
            "rolling-restart": self._rolling_restart,
            "disk-full": self._disk_full,
        }

    @property
    def kinds(self) -> frozenset[str]:
        """What can be carried out."""
        return frozenset(self._kinds)

    async def inject(self, fault: Fault) -> None:
        """Do it. A victim is a worker that works, or a whole cluster's broker: what is broken already is not hit."""
        await asyncio.sleep(fault.after_s)
        await self._kinds[fault.kind](fault)

    async def _victim(self, fault: Fault) -> Machine:
        return await self._fleet.await_one(fault.target)

    async def _signal(self, fault: Fault) -> None:
        (await self._victim(fault)).signal_worker(SIGNALS[fault.kind])

    async def _pause(self, fault: Fault) -> None:
        """Past the session's time-out: when it wakes, others have its partitions and it does not know."""
        machine = await self._victim(fault)
        paused = machine.signal_worker(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        if paused == machine.worker():
            machine.signal_worker(signal.SIGCONT)

    # ---- brokers

    def _node(self, fault: Fault) -> Node:
        return self._cluster.nodes[fault.target % len(self._cluster.nodes)]

    async def _broker_away(self, fault: Fault) -> None:
        await self._nodes_away([self._node(fault)], signal.SIGKILL, fault.seconds)

    async def _all_down(self, fault: Fault) -> None:
        await self._nodes_away(self._cluster.nodes, signal.SIGKILL, fault.seconds)

    async def _broker_restart(self, fault: Fault) -> None:
        await self._nodes_away([self._node(fault)], signal.SIGTERM, fault.seconds)

    async def _nodes_away(self, nodes: Iterable[Node], how: signal.Signals, seconds: float) -> None:
        for node in nodes:
            node.send(how)
        for node in nodes:
            await asyncio.to_thread(node.wait)
        await asyncio.sleep(seconds)
        for node in nodes:
            node.start()
        await self._whole()

    async def _broker_pause(self, fault: Fault) -> None:
        node = self._node(fault)
        node.send(signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        node.send(signal.SIGCONT)
        await self._whole()

    async def _whole(self) -> None:
        await asyncio.to_thread(self._cluster.await_whole)

    # ---- the network

    def _lines(self, fault: Fault) -> list[Proxy]:
        """Those of one broker, or one time in three all of them."""
        by_broker = list(zip(*self._proxies.values(), strict=True))
        if fault.target % 3 == 0:
            return [one for both in by_broker for one in both]
        return list(by_broker[fault.target % len(by_broker)])

    async def _bad_lines(self, fault: Fault) -> None:
        await _changed(self._lines(fault), LINES[fault.kind], fault.seconds)

    async def _cut_off(self, fault: Fault) -> None:
        """One side's workers, from all brokers: to the group they are gone, they themselves are well."""
        sides = list(self._proxies.values())
        await _changed(sides[fault.target % len(sides)], "hold", fault.seconds)

    async def _reset(self, fault: Fault) -> None:
        for one in self._lines(fault):
            one.reset()

    # ---- workers come and go

    async def _scale(self, fault: Fault) -> None:
        await self._fleet.scale(fault.target)

    async def _rolling_restart(self, fault: Fault) -> None:
        for machine in list(self._fleet.machines):
            await self._fleet.replace(machine)
            await self._fleet.await_one(-1)  # the new one, unless it has nothing to do

    # ---- the machine

    async def _disk_full(self, fault: Fault) -> None:
        """Its files cannot grow; meanwhile the worker ends, so that its successor starts on a full disk."""
        machine = await self._victim(fault)
        machine.limit_files(0)
        await asyncio.sleep(fault.seconds / 2)
        machine.signal_worker(TASK_FAILS)
        await asyncio.sleep(fault.seconds / 2)
        machine.limit_files(-1)


async def _changed(lines: Iterable[Proxy], mode: Mode, seconds: float) -> None:
    for one in lines:
        one.change(mode)
    await asyncio.sleep(seconds)
    for one in lines:
        one.change("pass")
