"""How much of a source may be on its way at once: so many slices, and so many bytes.

Slices alone would not bound memory: compressed, a slice of events that are each within the limits is a few kilobytes
to the broker and tens of megabytes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from streams.intake import Record


class Room:
    """Room for slices; one that alone takes more bytes than there are has all of it to itself.

    Args:
        slices: how many, at most.
        size_bytes: of their keys, values and headers together.
    """

    def __init__(self, slices: int, size_bytes: int) -> None:
        self._slices_left = self._slices = slices
        self._bytes_left = size_bytes
        self._left = asyncio.Event()

    async def enter(self, size_bytes: int) -> None:
        """Wait until there is room for one slice more, of this size. For one caller at a time."""
        while self._slices_left < self._slices and (self._slices_left == 0 or self._bytes_left < size_bytes):
            self._left.clear()
            await self._left.wait()
        self._slices_left -= 1
        self._bytes_left -= size_bytes

    def leave(self, size_bytes: int) -> None:
        """Give back what a slice took."""
        self._slices_left += 1
        self._bytes_left += size_bytes
        self._left.set()


def held_bytes(records: Iterable[Record]) -> int:
    """What these records hold, without what Python needs for each."""
    held = 0
    for record in records:
        held += len(record.value or b"") + len(record.key or b"")
        if record.headers:
            held += sum(len(name) + len(value or b"") for name, value in record.headers)
    return held
