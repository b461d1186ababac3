"""In processes of their own: what these functions set holds for a process until it ends."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Blocks of 8 MiB are freed below a block that stays, where a heap cannot shrink; the first free raises glibc's limit.
FREED = """
import ctypes, sys
from streams.heap import give_large_blocks_back

def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

if sys.argv[1] == "tidy":
    assert give_large_blocks_back()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
size = 8 << 20
libc.free(libc.malloc(16 << 20))
blocks = [libc.malloc(size) for _ in range(8)]
for block in blocks:
    ctypes.memset(block, 1, size)
before = resident_mib()
for block in blocks[:-1]:
    libc.free(block)
print(before - resident_mib())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such knobs")
@pytest.mark.parametrize(("how", "given_back"), [("as-it-is", False), ("tidy", True)])
def test_large_blocks_go_back_to_the_system_when_they_are_freed(how: str, given_back: bool) -> None:
    done = subprocess.run([sys.executable, "-c", FREED, how], capture_output=True, text=True, check=True)
    assert (float(done.stdout) > 50) is given_back
