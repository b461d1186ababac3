"""The machines of the storm: each a supervisor with one worker, on the left or the right of the network in turn."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from streams.children import die_with_parent, free_ports
from tests.storm.cluster import SIDES, Cluster, Side
from tests.storm.patience import Patience

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT_S = 50.0
READY_TIMEOUT_S = 60.0
NAIVE_SETTLES_S = 5.0
WORKER, NAIVE = "tests.storm.worker", "tests.kafka.naive_worker"
_ENDED = re.compile(r"worker \d+ ended with code (-?\d+)")


class Machine:
    """A supervisor and its worker."""

    def __init__(self, number: int, side: Side, module: str, env: Mapping[str, str], log: Path) -> None:
        self.number, self.side, self.log = number, side, log
        self._port = free_ports(1)[0]
        self._has_metrics = module != NAIVE
        full = {**os.environ, **env, "STREAMGAUGE_METRICS__PORT": str(self._port), "PYTHONPATH": str(ROOT)}
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.storm.host", module], cwd=log.parent, env=full, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent(),
            )  # fmt: skip

    def worker(self) -> int | None:
        """The process id of its worker, if one runs."""
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        except OSError:
            return None
        return int(children[0]) if children else None

    async def ready(self) -> bool | None:
        """Whether its worker says that it has partitions and its models are warm; None when it says nothing."""
        if not self._has_metrics:
            await asyncio.sleep(NAIVE_SETTLES_S)
            return self.worker() is not None
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
                text = await reader.read()
                writer.close()
        except (OSError, TimeoutError):
            return None
        return b"\nstreamgauge_ready 1.0" in text

    def signal_worker(self, number: int) -> int | None:
        """Send the worker a signal; returns its process id, None when none runs."""
        pid = self.worker()
        if pid is not None:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return None
        return pid

    def limit_files(self, size: int) -> None:
        """From now on no file of the supervisor or its workers may grow beyond so many bytes (-1: no limit)."""
        for pid in (self.process.pid, self.worker()):
            if pid is not None:
                try:
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
                except ProcessLookupError:
                    continue

    async def stop(self) -> int:
        """End it in order; returns its exit code, SIGKILL's when it did not listen."""
        if self.process.poll() is None:
            self.process.terminate()
        patience = Patience(STOP_TIMEOUT_S)
        while (code := self.process.poll()) is None:
            if patience.over:
                self.process.kill()
            await asyncio.sleep(0.05)
        return code

    def exit_codes(self) -> Counter[int]:
        """With which codes its workers ended so far, by its log."""
        return Counter(map(int, _ENDED.findall(self.log.read_text(encoding="utf-8", errors="replace"))))


class Fleet:
    """The machines that run, and the way to have more or fewer of them."""

    def __init__(self, cluster: Cluster, module: str, env: Mapping[str, str], directory: Path) -> None:
        """`env` is every machine's, `directory` takes their logs."""
        self._cluster, self._module, self._env, self._directory = cluster, module, env, directory
        self._made = 0
        self.machines: list[Machine] = []
        self.codes: Counter[int] = Counter()  # of workers, as their supervisors saw them
        self.stopped: Counter[int] = Counter()  # exit codes of supervisors

    async def scale(self, count: int) -> None:
        """Have so many machines: new ones start, the oldest ones stop in order."""
        while len(self.machines) < count:
            self._add()
        leaving, self.machines = self.machines[: len(self.machines) - count], self.machines[-count:] if count else []
        await asyncio.gather(*(self._stop(one) for one in leaving))

    async def await_one(self, first: int) -> Machine:
        """The first machine from number `first` on, in turn, that is ready; waits until one is, or any will do."""
        patience = Patience(READY_TIMEOUT_S)
        while True:
            start = first % len(self.machines)
            for machine in self.machines[start:] + self.machines[:start]:
                if await machine.ready() or patience.over:
                    return machine
            await asyncio.sleep(0.1)

    async def replace(self, machine: Machine) -> None:
        """Stop one, start another in its place."""
        self.machines.remove(machine)
        await self._stop(machine)
        self._add()

    def _add(self) -> None:
        side = SIDES[self._made % len(SIDES)]
        bootstrap = self._cluster.bootstrap_of(side)
        log = self._directory / f"machine-{self._made}.log"
        env = {**self._env, "STREAMGAUGE_BROKER__BOOTSTRAP": bootstrap}
        if self._module == NAIVE:
            env = {**self._env, "NAIVE_BOOTSTRAP": bootstrap.replace(",", ";kafka://")}
        self.machines.append(Machine(self._made, side, self._module, env, log))
        self._made += 1

    async def _stop(self, machine: Machine) -> None:
        code = await machine.stop()
        self.stopped[-signal.SIGKILL if code < 0 else code] += 1
        self.codes += machine.exit_codes()
