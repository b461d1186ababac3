"""What a job that runs beside a worker leaves to it: it waits for the processor, keeps to a few cores, and is bounded.

All of it holds for the whole process, and so for every library in it, whatever threads that starts.
"""

from __future__ import annotations

import os
import resource

_MIB = 1 << 20
_IDLE_FROM = 19  # the lowest niceness; Linux has one class below it


def take_little(nice: int, cores: int | None, max_memory_mib: int | None) -> None:
    """Lower this process for good: a job calls it first, before a library counts the cores.

    Args:
        nice: 0 (as others) to 19: at 19 it also joins the idle class of Linux, so that a thread of a worker that wakes
            up gets the core at once. Niceness alone shares the core well on average and yet lets such a thread wait.
        cores: how many it may use, the last ones of the machine; None: all.
        max_memory_mib: what it may take, code and files that are mapped left aside; beyond, it gets a `MemoryError`, or
            a native library's own complaint.
    """
    os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
    if nice >= _IDLE_FROM and hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    if max_memory_mib is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = max_memory_mib * _MIB
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in the words of Python, PyTorch, ONNX Runtime or OpenVINO."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in said for words in ("can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory")
    )
