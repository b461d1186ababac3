"""The proxy between a real client and a real server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from streams.children import free_ports
from tests.storm.proxy import DELAY_S, JITTER_S, SLICE_BYTES, Proxy

SOON_S = 10.0
A_WHILE_S = 0.2


class Line(NamedTuple):
    """A client's end, behind a proxy in front of a server that answers in capitals."""

    proxy: Proxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    port: int

    async def say(self, text: bytes) -> None:
        self.writer.write(text)
        await self.writer.drain()

    async def hear(self, size: int, within_s: float = SOON_S) -> bytes:
        async with asyncio.timeout(within_s):
            return await self.reader.readexactly(size)


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    (port,) = free_ports(1)
    proxy = Proxy(port, server.sockets[0].getsockname()[1])
    await proxy.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Line(proxy, reader, writer, port)
    finally:
        writer.close()
        await proxy.close()
        server.close()


async def test_a_good_line_passes_everything_and_the_end() -> None:
    async with line() as one:
        text = b"abc" * 100_000
        await one.say(text)
        assert await one.hear(len(text)) == text.upper()
        one.writer.write_eof()
        assert await one.reader.read() == b""


async def test_what_is_held_arrives_when_the_line_is_back() -> None:
    async with line() as one:
        await one.say(b"before")
        await one.hear(6)
        one.proxy.change("hold")
        await one.say(b"held")
        with pytest.raises(TimeoutError):
            await one.hear(1, A_WHILE_S)
        one.proxy.change("pass")
        assert await one.hear(4) == b"HELD"


async def test_a_new_connection_waits_while_the_line_holds() -> None:
    async with line() as one:
        one.proxy.change("hold")
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"hello")
        other = Line(one.proxy, reader, writer, one.port)
        with pytest.raises(TimeoutError):
            await other.hear(1, A_WHILE_S)
        one.proxy.change("pass")
        assert await other.hear(5) == b"HELLO"
        writer.close()


async def test_half_open_swallows_silently_and_is_reset_in_the_end() -> None:
    async with line() as one:
        await one.say(b"before")
        await one.hear(6)
        one.proxy.change("half-open")
        for _ in range(3):
            await one.say(b"into the void")
            with pytest.raises(TimeoutError):
                await one.hear(1, A_WHILE_S)
        one.proxy.change("pass")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await one.hear(1)
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        again = Line(one.proxy, reader, writer, one.port)
        await again.say(b"again")
        assert await again.hear(5) == b"AGAIN"
        writer.close()


async def test_a_reset_is_rude() -> None:
    async with line() as one:
        await one.say(b"before")
        await one.hear(6)
        one.proxy.reset()
        with pytest.raises(ConnectionResetError):
            await one.hear(1)


async def test_slices_change_nothing_but_the_pace() -> None:
    async with line() as one:
        one.proxy.change("slices")
        text = bytes(range(97, 123)) * SLICE_BYTES
        await one.say(text)
        assert await one.hear(len(text)) == text.upper()


async def test_delay_takes_its_time_and_keeps_the_order() -> None:
    async with line() as one:
        one.proxy.change("delay")
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await one.say(b"one")
        assert await one.hear(3) == b"ONE"
        assert loop.time() - started_s >= 2 * (DELAY_S - JITTER_S)
