"""The verifier's process seen from the storm: how far it has come, and in the end its verdict."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.storm.fleet import ROOT


class Hang(RuntimeError):
    """Something did not come back in time."""


class Watcher:
    """The verifier's process, and how far it has come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.ends = 0
        self._verdict: dict[str, Any] | None = None
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, directory: Path) -> Watcher:
        """Start it on a directory with its job and the oracle."""
        with (directory / "verifier.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.storm.verifier", str(directory), cwd=ROOT,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, limit=1 << 26,
            )  # fmt: skip
        return cls(process)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            found = json.loads(line)
            self.ends = found.get("ends", self.ends)
            self._verdict = found.get("verdict")

    async def judge(self, sent: int) -> dict[str, Any]:
        """Tell it to judge, and how many events were sent; raises Hang when it ends without a verdict."""
        assert self._process.stdin is not None
        self._process.stdin.write(str(sent).encode())
        self._process.stdin.close()
        await self._reading
        await self._process.wait()
        if self._verdict is None:
            raise Hang("the verifier ended without a verdict; see verifier.log")
        return self._verdict

    async def close(self) -> None:
        """End it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading
