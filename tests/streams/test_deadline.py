"""The deadline of a stop holds whatever the process is doing."""

from __future__ import annotations

import subprocess
import sys

import pytest

DEAF_LOOP = """
async def deaf():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
"""
NEVER_ENDS = {
    "a loop that swallows cancellation": f"{DEAF_LOOP}asyncio.run(deaf())",
    "a thread that waits": "threading.Event().wait()",
    "a loop that is busy": "while True: pass",
}


@pytest.mark.parametrize("work", NEVER_ENDS.values(), ids=NEVER_ENDS)
def test_a_process_past_its_deadline_ends_with_70_and_says_why(work: str) -> None:
    program = f"import asyncio, threading\nfrom streams.exits import end_after\nend_after(0.2, 'too late')\n{work}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert done.returncode == 70
    assert "too late" in done.stderr
