"""Room for slices, by number and by size."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.room import Room, held_bytes
from tests.streams.records import FakeRecord


async def enters(room: Room, size_bytes: int) -> bool:
    """Whether it gets in without anybody leaving."""
    entering = asyncio.create_task(room.enter(size_bytes))
    done, _ = await asyncio.wait({entering}, timeout=0.01)
    entering.cancel()
    return bool(done)


async def test_slices_are_counted() -> None:
    room = Room(2, 100)
    assert [await enters(room, 0) for _ in range(3)] == [True, True, False]
    room.leave(0)
    assert await enters(room, 0)


async def test_bytes_are_counted() -> None:
    room = Room(10, 100)
    assert [await enters(room, size) for size in (60, 60, 40, 1)] == [True, False, True, False]
    room.leave(60)
    assert await enters(room, 60)


async def test_what_is_larger_than_all_of_it_has_it_to_itself() -> None:
    room = Room(10, 100)
    assert await enters(room, 1)
    entering = asyncio.create_task(room.enter(1000))
    await asyncio.sleep(0)
    assert not entering.done()
    room.leave(1)
    await asyncio.wait_for(entering, 5)
    assert not await enters(room, 0), "nothing beside it"
    room.leave(1000)
    assert await enters(room, 100)


@settings(deadline=None)
@given(st.lists(st.integers(0, 150), max_size=30), st.integers(1, 5))
def test_never_more_than_there_is_room_for_and_nobody_waits_in_an_empty_one(sizes: list[int], slices: int) -> None:
    async def run() -> None:
        room, inside = Room(slices, 100), list[int]()
        for size in sizes:
            entering = asyncio.create_task(room.enter(size))
            await asyncio.sleep(0)
            while not entering.done():
                assert inside, "it waits for nobody"
                room.leave(inside.pop(0))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            inside.append(size)
            assert len(inside) <= slices and (len(inside) == 1 or sum(inside) <= 100)

    asyncio.run(run())


def test_what_records_hold() -> None:
    headers = [("name", b"four"), ("x", None)]
    records = [FakeRecord(b"value", key=b"key", headers=headers), FakeRecord(None), FakeRecord(b"v")]
    assert held_bytes(records) == 5 + 3 + 8 + 1 + 1
