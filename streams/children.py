"""Child processes: ports for them, and their end with ours."""

from __future__ import annotations

import ctypes
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on at present."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def die_with_parent() -> Callable[[], None] | None:
    """For a new child to run before its program: Linux then kills it when the thread that started it ends.

    The C library is looked up here, before the fork: afterwards as little as possible may happen.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
