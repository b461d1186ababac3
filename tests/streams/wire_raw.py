"""Records as no well-behaved client sends them."""

from __future__ import annotations

from collections.abc import Sequence

import aiokafka
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

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


def batch_of(records: Sequence[Raw], codec: int = 0, time_ms: int = 1_760_000_000_000) -> bytes:
    """One batch of records, as it travels and lies in the log; `codec` 3 is lz4."""
    builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, -1, 1 << 24)
    for offset, (key, value, headers) in enumerate(records):
        assert builder.append(offset, time_ms, key, value, [(_Name(name), data) for name, data in headers])
    return bytes(builder.build())


async def send_raw(bootstrap: str, topic: str, partition: int, records: Sequence[Raw]) -> None:
    """Send one batch of such records and wait for the broker."""
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        batch = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 1 << 24)
        for key, value, headers in records:
            named = [(_Name(name), data) for name, data in headers]
            batch.append(key=key, value=value, timestamp=1_760_000_000_000, headers=named)
        batch.close()
        await (await producer.send_batch(batch, topic, partition=partition))
    finally:
        await producer.stop()
