"""One fault of a worker process: named by the environment, it strikes at the n-th time its place is passed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import asdict, dataclass
from typing import Literal, Self

VARIABLE = "CRASH_FAULT"
STRUCK = "the fault strikes at "  # in the worker's log, before anything happens
EXIT_CODE = 137

DWELLS_S = 2.0

Kind = Literal["exit", "kill", "raise", "refuse", "withhold", "dwell", "hang"]


class Injected(RuntimeError):
    """What a fault of the kind `raise` raises: nothing in the product knows it."""


@dataclass
class Fault:
    """Strike at the `occurrence`-th passing of `point`.

    Kinds: `exit` (os._exit), `kill` (SIGKILL), `raise` (an exception), `refuse` (the broker refuses the record),
    `withhold` (the record is never sent, and the process ends some commits later), `dwell` (that step takes two
    seconds longer) and `hang` (it never ends). The last two are for steps that run on a thread.
    """

    point: str
    occurrence: int
    kind: Kind

    def __post_init__(self) -> None:
        self._passed = 0
        self._lock = threading.Lock()

    @classmethod
    def from_environment(cls) -> Self | None:
        """What the parent asked for."""
        text = os.environ.get(VARIABLE)
        return cls(**json.loads(text)) if text else None

    def environment(self) -> dict[str, str]:
        """For the worker that is to have it."""
        return {VARIABLE: json.dumps(asdict(self))}

    def due(self) -> bool:
        """Count a passing; true for the one that is struck."""
        with self._lock:
            self._passed += 1
            return self._passed == self.occurrence

    def strike(self) -> None:
        """Do it if it is due."""
        if self.due():
            self.say()
            match self.kind:
                case "raise":
                    raise Injected(self.point)
                case "dwell":
                    time.sleep(DWELLS_S)
                case "hang":
                    threading.Event().wait()
                case _:
                    self.end()

    def say(self) -> None:
        """Write past all buffers: the process may have no time to flush them."""
        os.write(2, f"{STRUCK}{self.point}, passing {self.occurrence}, {self.kind}\n".encode())

    def end(self) -> None:
        """End this process as a crash does."""
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal may take a moment, and nothing may happen in it
        os._exit(EXIT_CODE)

    def end_after(self, seconds: float) -> None:
        """End this process a little later, from a thread."""

        def later() -> None:
            time.sleep(seconds)
            self.end()

        threading.Thread(target=later, daemon=True).start()
