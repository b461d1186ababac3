"""How a worker's memory is kept: what Python looks for, and what the C library gives back to the system."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

# From glibc's malloc.h; other C libraries (musl, macOS) have no such knobs and do not need them.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_MMAP_FROM_BYTES, _ARENAS = 1 << 20, 2


def calm_the_garbage_collector() -> None:
    """Nothing on an event's way is cyclic: look for cycles seldom, and not among what lives as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def give_all_back() -> None:
    """Give the system back what the C library keeps of freed memory: worth its while after a model has gone."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def give_large_blocks_back() -> bool:
    """Have blocks of 1 MiB and more be given back to the system when they are freed; call it before threads start.

    glibc raises that limit to the largest block ever freed, up to 32 MiB, and from then on such blocks are cut out of
    heaps, of which every thread may get its own: what a few huge events or a large batch took stays. False where the C
    library has no such knobs.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_FROM_BYTES) and mallopt(_M_ARENA_MAX, _ARENAS))
