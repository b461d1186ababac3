"""A TCP proxy that behaves as bad networks do. One stands in front of each broker, for each side of the workers.

hold       nothing passes, nothing is lost: what was sent arrives when the line is back, as TCP does it
half-open  the broker's end is gone and nobody says so: what is sent vanishes, and no answer ever comes
slices     1 KiB at a time
delay      100 ms, 50 ms more or less, the order kept
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import Literal

Mode = Literal["pass", "hold", "half-open", "slices", "delay"]
READ_BYTES, SLICE_BYTES, SLICE_PAUSE_S = 65_536, 1024, 0.002
DELAY_S, JITTER_S = 0.1, 0.05
_NO_LINGER = struct.pack("ii", 1, 0)  # closing such a socket sends a reset


class Proxy:
    """Forwards connections from one port of loopback to another."""

    def __init__(self, port: int, target: int, seed: int = 0) -> None:
        self._port, self._target = port, target
        self._rng = random.Random(seed)
        self._mode: Mode = "pass"
        self._changed = asyncio.Event()
        self._open: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    def change(self, mode: Mode) -> None:
        """Make the line good or bad. What was half-open is reset when it becomes another mode."""
        before, self._mode = self._mode, mode
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if mode == "half-open":
            for one in self._open:
                one.lose_broker()
        elif before == "half-open":
            self.reset()

    def reset(self) -> None:
        """Reset every open connection."""
        for one in list(self._open):
            one.reset()

    async def close(self) -> None:
        """Stop listening and end what is open."""
        if self._server is not None:
            self._server.close()
        self.reset()

    async def line_is(self) -> Mode:
        """The mode, once it lets something pass or vanish."""
        while self._mode == "hold":
            await self._changed.wait()
        return self._mode

    async def delay(self) -> None:
        """Wait as long as the line takes."""
        await asyncio.sleep(DELAY_S + self._rng.uniform(-JITTER_S, JITTER_S))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        one = _Connection(self, reader, writer)
        self._open.add(one)
        try:
            await one.run(self._target)
        finally:
            self._open.discard(one)


class _Connection:
    """A client's connection and the one to the broker that belongs to it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = reader, writer
        self._broker: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lost = False

    async def run(self, target: int) -> None:
        """Forward until either end closes."""
        reader, writer = self._client
        try:
            if await self._proxy.line_is() == "half-open":
                self._lost = True
            else:
                self._broker = await asyncio.open_connection("127.0.0.1", target)
            async with asyncio.TaskGroup() as both:
                if self._broker is not None:
                    both.create_task(self._forward(self._broker[0], writer, answers=True))
                both.create_task(self._forward(reader, self._broker and self._broker[1], answers=False))
        except (OSError, ExceptionGroup):
            pass  # an end is gone: so is the other, below
        finally:
            for end in (writer, self._broker and self._broker[1]):
                if end is not None:
                    end.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, answers: bool) -> None:
        while data := await reader.read(READ_BYTES):
            mode = await self._proxy.line_is()
            if self._lost or writer is None:
                continue  # it vanishes
            if mode == "delay":
                await self._proxy.delay()
            if mode == "slices":
                await _in_slices(writer, data)
            else:
                writer.write(data)
                await writer.drain()
        if self._lost and answers:
            await asyncio.Event().wait()  # the broker's end closed; the client is not told
        raise ConnectionResetError("an end closed")

    def lose_broker(self) -> None:
        """The broker's end goes away, and the client is not told."""
        self._lost = True
        if self._broker is not None:
            self._broker[1].close()

    def reset(self) -> None:
        """Both ends are told at once, rudely."""
        for end in (self._client[1], self._broker and self._broker[1]):
            if end is not None:
                _reset(end)


async def _in_slices(writer: asyncio.StreamWriter, data: bytes) -> None:
    for start in range(0, len(data), SLICE_BYTES):
        writer.write(data[start : start + SLICE_BYTES])
        await writer.drain()
        await asyncio.sleep(SLICE_PAUSE_S)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()
