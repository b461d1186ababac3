"""The limits are those of a process, so each test asks one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from streams.learning.limits import is_out_of_memory

ASK = """
import json, os, resource, sys, threading
from streams.learning.limits import is_out_of_memory, take_little
take_little(*json.loads(sys.argv[1]))
found = {}
def look():
    found.update(nice=os.getpriority(os.PRIO_PROCESS, 0), cores=len(os.sched_getaffinity(0)))
    found["idle"] = os.sched_getscheduler(0) == os.SCHED_IDLE
    try:
        bytearray(600 << 20)
    except MemoryError as error:
        found["out_of_memory"] = is_out_of_memory(error)
thread = threading.Thread(target=look)  # what a library starts later is bounded too
thread.start()
thread.join()
print(json.dumps(found))
"""


def asked(*limits: int | None) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(limits)], capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_job_steps_back_keeps_to_its_cores_and_is_bounded() -> None:
    before = {"nice": os.getpriority(os.PRIO_PROCESS, 0), "idle": os.sched_getscheduler(0) == os.SCHED_IDLE}
    assert asked(19, 1, 512) == {"nice": 19, "idle": True, "cores": 1, "out_of_memory": True}
    assert asked(0, None, None) == {**before, "cores": len(os.sched_getaffinity(0))}
    assert asked(18, None, None)["idle"] is before["idle"]


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried",
        "std::bad_alloc",
        "CUDA out of memory. Tried to allocate 20.00 MiB",
    ],
)
def test_the_words_of_native_libraries_are_known(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
