"""The way out leads out, whatever is wrong with what is written on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.exits import BROKER_UNAVAILABLE, UNEXPECTED

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")  # every write to it fails, as on a full disk

ENDING = """
import asyncio, logging
from streams.exits import BrokerUnavailable, guarded
logging.basicConfig(level=logging.INFO)
async def failing():
    print("not flushed yet")
    raise {error}("as the test wants it")
async def main():
    guarded(failing(), "a task")
    await asyncio.sleep(20)
asyncio.run(main())
"""


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize(
    ("error", "code"), [("ValueError", UNEXPECTED), ("BrokerUnavailable", BROKER_UNAVAILABLE)], ids=["70", "75"]
)
def test_a_full_disk_does_not_keep_a_failed_process_alive(error: str, code: int) -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", ENDING.format(error=error)]
    with FULL.open("wb") as full:
        done = subprocess.run(command, cwd=ROOT, env=buffered, stdout=full, stderr=full, timeout=60)
    assert done.returncode == code
