"""One system at work: its process, from start to stop."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streams.bench.contestants import Contestant
from streams.bench.job import Job, Tally
from streams.children import die_with_parent
from streams.settings import TOPICS

# What a worker reads and writes besides its sources and the predictions, by the names of its settings.
SIDE_TOPICS = tuple(name for name in TOPICS if name != "predictions")

_STOP_S = 15.0
_LOG_TAIL = 600
_TOKENS = re.compile(r"^streamgauge_(padded_)?tokens_total\{[^}]*\} (\S+)", re.MULTILINE)


class Ended(RuntimeError):
    """A system's process ended by itself; the message has the end of its log."""


class Running:
    """The process of one system, in a session of its own. As a context manager it ends with the block."""

    def __init__(self, system: Contestant, job: Job) -> None:
        """Nothing is started yet."""
        self._system, self._job = system, job
        self._log = Path(job.directory) / "log"
        self.tally = Tally(job.directory)

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", f"streams.bench.systems.{self._system.program}", str(self._job.write())]
        # What is set for the worker of whoever measures must not reach the one that is measured.
        keep = {name: value for name, value in os.environ.items() if not name.startswith("STREAMGAUGE_")}
        if home := os.environ.get("STREAMGAUGE_HOME"):
            keep["STREAMGAUGE_HOME"] = home
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own arguments, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=keep,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def alive(self) -> None:
        """Raises Ended when it is not."""
        if (code := self._process.poll()) is not None:
            raise Ended(f"ended with code {code}: {self.log_tail()}")

    def log_tail(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:].strip()

    def padding_ratio(self) -> float | None:
        """Padded over real tokens: from the wrapper around the model that all share, or from ours' own metrics."""
        if self._system.role != "ours":
            return self.tally.padding_ratio
        url = f"http://127.0.0.1:{self._job.metrics_port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return padding_of(answer.read().decode())
        except OSError:
            return None

    def model_info(self) -> dict[str, Any]:
        """What the system wrote of its model, if it did."""
        try:
            found: dict[str, Any] = json.loads(self._job.model_file.read_text(encoding="utf-8"))
        except OSError:
            return {}
        return found


def padding_of(metrics: str) -> float | None:
    """The padding ratio over all tasks in a worker's metrics; None without a token."""
    sums = {"": 0.0, "padded_": 0.0}
    for padded, value in _TOKENS.findall(metrics):
        sums[padded] += float(value)
    return sums["padded_"] / sums[""] if sums[""] else None
