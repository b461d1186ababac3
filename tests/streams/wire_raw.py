"""Records as no well-behaved client sends them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import aiokafka
import cramjam
from aiokafka.record.default_records import DefaultRecordBase, _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = (GZIP, SNAPPY, LZ4, ZSTD)
HEADER_BYTES = DefaultRecordBase.HEADER_STRUCT.size
_BLOCK_BYTES = 64 << 10  # of snappy
TIME_MS = 1_760_000_000_000
Raw = tuple[bytes | None, bytes | None, Sequence[tuple[bytes, bytes | None]]]  # key, value, headers


class _Name(str):
    """A header's name that is encoded as given bytes."""

    __slots__ = ("_data",)
    _data: bytes

    def __new__(cls, data: bytes) -> _Name:
        made = super().__new__(cls, "name")
        made._data = data
        return made

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self._data


def batch_of(records: Sequence[Raw], codec: int = NONE, time_ms: int = TIME_MS) -> bytes:
    """One batch of records, as it travels and lies in the log."""
    builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, -1, 1 << 24)
    for offset, (key, value, headers) in enumerate(records):
        assert builder.append(offset, time_ms, key, value, [(_Name(name), data) for name, data in headers])
    return bytes(builder.build())


def record_of(value: bytes, offset: int, key: bytes = b"k") -> bytes:
    """One record as it lies in a batch that is not compressed."""
    builder = _DefaultRecordBatchBuilderPy(2, NONE, 0, -1, -1, -1, 1 << 30)
    assert builder.append(offset, TIME_MS, key, value, [])
    return bytes(builder.build()[HEADER_BYTES:])


def sealed(payload: bytes, codec: int, count: int, offsets: int | None = None) -> bytes:
    """A batch of so many records around what a codec has made, or somebody else: lengths and checksum are right.

    `offsets` is how many it spans, if more than there are records in it.
    """
    batch = bytearray(batch_of([(None, b"", [])]))[:HEADER_BYTES] + payload
    header = DefaultRecordBase.HEADER_STRUCT
    fields = list(header.unpack_from(batch))
    fields[1], fields[5], fields[6], fields[12] = (
        len(batch) - DefaultRecordBase.AFTER_LEN_OFFSET,
        codec,
        (offsets or count) - 1,
        count,
    )
    header.pack_into(batch, 0, *fields)
    crc = calc_crc32c(bytes(batch[DefaultRecordBase.ATTRIBUTES_OFFSET :]))
    struct.pack_into(">I", batch, DefaultRecordBase.CRC_OFFSET, crc)
    return bytes(batch)


def compressed(parts: Iterable[bytes], codec: int) -> bytes:
    """One stream of a codec, made part by part: what it expands to is never held."""
    if codec == SNAPPY:
        pieces = (part[at : at + _BLOCK_BYTES] for part in parts for at in range(0, len(part), _BLOCK_BYTES))
        blocks = (bytes(cramjam.snappy.compress_raw(piece)) for piece in pieces)
        framed = b"".join(len(block).to_bytes(4, "big") + block for block in blocks)
        return b"\x82SNAPPY\0" + (1).to_bytes(4, "big") * 2 + framed
    if codec == GZIP:
        packer = zlib.compressobj(9, wbits=31)
        return b"".join(packer.compress(part) for part in parts) + packer.flush()
    made: Any = cramjam.zstd.Compressor() if codec == ZSTD else cramjam.lz4.Compressor(block_linked=False)
    out = []
    for part in parts:
        made.compress(part)
        out.append(bytes(made.flush()))
    return b"".join(out) + bytes(made.finish())


def bomb(codec: int, count: int, value_bytes: int) -> bytes:
    """A batch of so many records, each of so many zeros; a small part of that as it travels."""
    zeros = bytes(value_bytes)
    return sealed(compressed((record_of(zeros, offset) for offset in range(count)), codec), codec, count)


async def send_raw(bootstrap: str, topic: str, partition: int, records: Sequence[Raw]) -> None:
    """Send one batch of such records and wait for the broker."""
    await send_batch(bootstrap, topic, partition, batch_of(records))


async def send_batch(bootstrap: str, topic: str, partition: int, data: bytes) -> int:
    """Send a batch made by hand and wait for the broker, which may refuse it; returns its first offset."""
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=64 << 20)
    await producer.start()
    try:
        batch = producer.create_batch()
        count = DefaultRecordBase.HEADER_STRUCT.unpack_from(data)[12]
        for _ in range(count):
            batch.append(key=None, value=b"", timestamp=TIME_MS)
        batch.close()
        batch._buffer = data  # in the place of what it would build
        first = await (await producer.send_batch(batch, topic, partition=partition))
        return int(first.offset)
    finally:
        await producer.stop()
