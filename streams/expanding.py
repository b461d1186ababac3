"""The compressed records of a batch, expanded up to a bound and never beyond.

A batch of a few kilobytes can expand to gigabytes: up to 1,000 times its size with gzip, 250 with lz4, 30,000 with
zstd. aiokafka has no bound. Here all codecs write into one buffer of the most that is allowed, of which the operating
system provides only what is touched; what does not fit is not expanded further. While zstd runs, its window takes as
much again at most, if a frame asks for a large one.
"""

from __future__ import annotations

import mmap
import threading
import zlib
from collections.abc import Callable
from typing import Final

import cramjam
from aiokafka.record.default_records import DefaultRecordBase

HEADER_BYTES: Final = DefaultRecordBase.HEADER_STRUCT.size
_ATTRIBUTES: Final = DefaultRecordBase.ATTRIBUTES_OFFSET + 1  # the low byte of two
_CODEC_MASK: Final = DefaultRecordBase.CODEC_MASK
_KEPT_BYTES = 4 << 20  # a buffer of which more was touched is given back
_FED_BYTES, _PART_BYTES = 64 << 10, 1 << 20  # of gzip at a time, in and out
_XERIAL = b"\x82SNAPPY\0" + (1).to_bytes(4, "big") * 2  # begins a stream of snappy blocks, each behind its length
_FULL = "failed to write whole buffer"  # how cramjam says that its output does not fit


class TooLarge(Exception):
    """The records expand beyond the bound."""


class Corrupt(Exception):
    """The records cannot be read; the message says why, in words of a library."""


class Expander:
    """Expands batches of the record format v2.

    Args:
        limit_bytes: what the records of one batch may take, at most.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._kept = threading.local()

    def plain(self, batch: memoryview) -> bytes | memoryview:
        """The same batch with its records as they are when not compressed. Its checksum is no longer valid.

        Raises:
            TooLarge: the records expand beyond the bound.
            Corrupt: the codec is unknown, or they are not what it makes.
        """
        codec = batch[_ATTRIBUTES] & _CODEC_MASK
        if not codec:
            return batch
        if (expand := _CODECS.get(codec)) is None:
            raise Corrupt(f"no codec has the number {codec}")
        buffer: mmap.mmap = getattr(self._kept, "buffer", None) or mmap.mmap(-1, HEADER_BYTES + self.limit_bytes)
        self._kept.buffer = None
        with memoryview(buffer) as whole, whole[HEADER_BYTES:] as room:
            whole[:HEADER_BYTES] = batch[:HEADER_BYTES]
            whole[_ATTRIBUTES] &= ~_CODEC_MASK
            size = _expanded(expand, batch[HEADER_BYTES:], room)
            plain = bytes(whole[: HEADER_BYTES + size])
        if size <= _KEPT_BYTES:
            self._kept.buffer = buffer
        return plain


_Expand = Callable[[memoryview, memoryview], int]  # from, into; returns how many bytes were written


def _expanded(expand: _Expand, data: memoryview, room: memoryview) -> int:
    try:
        return expand(data, room)
    except (TooLarge, MemoryError):
        raise
    except Exception as error:  # each codec has errors of its own
        if str(error) == _FULL:
            raise TooLarge from None
        raise Corrupt(str(error) or type(error).__name__) from None


def _gzip(data: memoryview, room: memoryview) -> int:
    """One or more members one after the other, as the format allows."""
    size = at = 0
    while at < len(data):
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not member.eof:
            if not (fed := member.unconsumed_tail):
                fed = bytes(data[at : at + _FED_BYTES])
                at += len(fed)
            part = member.decompress(fed, _PART_BYTES)
            if not (part or fed or member.eof):
                raise Corrupt("gzip: it ends in the middle")
            if size + len(part) > len(room):
                raise TooLarge
            room[size : size + len(part)] = part
            size += len(part)
        at -= len(member.unused_data)
    return size


def _snappy(data: memoryview, room: memoryview) -> int:
    if data[: len(_XERIAL)] != _XERIAL:
        return _snappy_block(data, room)
    size, at = 0, len(_XERIAL)
    while at < len(data):
        begins = at + 4
        at = begins + int.from_bytes(data[at:begins], "big")
        if at > len(data):
            raise Corrupt("snappy: a block is longer than what is there")
        size += _snappy_block(data[begins:at], room[size:])
    return size


def _snappy_block(data: memoryview, room: memoryview) -> int:
    if cramjam.snappy.decompress_raw_len(data) > len(room):
        raise TooLarge
    return int(cramjam.snappy.decompress_raw_into(data, room))


def _lz4(data: memoryview, room: memoryview) -> int:
    return int(cramjam.lz4.decompress_into(data, room))


def _zstd(data: memoryview, room: memoryview) -> int:
    return int(cramjam.zstd.decompress_into(data, room))


_CODECS: dict[int, _Expand] = {
    DefaultRecordBase.CODEC_GZIP: _gzip,
    DefaultRecordBase.CODEC_SNAPPY: _snappy,
    DefaultRecordBase.CODEC_LZ4: _lz4,
    DefaultRecordBase.CODEC_ZSTD: _zstd,
}
