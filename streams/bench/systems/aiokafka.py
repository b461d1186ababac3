"""Plain aiokafka: fetch a fixed batch, score it, send it as record batches, commit by hand.

The consumer follows https://aiokafka.readthedocs.io/en/stable/consumer.html ("Manual vs automatic committing":
`getmany`, `enable_auto_commit=False`), the producer https://aiokafka.readthedocs.io/en/stable/examples/batch_produce.html
(`create_batch`, `send_batch`). Commits are half a second apart, not one a batch: the guarantee is the same, and faster.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.bench.job import Job
from streams.bench.systems.common import At, decode, open_scorer, predictions

_COMMIT_S = 0.5
_BATCH_BYTES = 262_144  # 16 KiB by default: a batch of events would take thirty record batches


async def run(job: Job) -> None:
    """Until the process is ended."""
    scorer = await asyncio.to_thread(open_scorer, job)
    consumer = AIOKafkaConsumer(
        job.input_topic,
        bootstrap_servers=job.bootstrap,
        group_id=job.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    producer = AIOKafkaProducer(bootstrap_servers=job.bootstrap, acks="all", max_batch_size=_BATCH_BYTES)
    await producer.start()
    await consumer.start()
    parts = itertools.cycle(range(job.partitions))
    committed_s = time.monotonic()
    while True:
        fetched = await consumer.getmany(timeout_ms=int(job.batch_wait_ms), max_records=job.batch_events)
        records = [record for batch in fetched.values() for record in batch]
        if records:
            events = [decode(record.value) for record in records]
            places = [At(record.topic, record.partition, record.offset) for record in records]
            if job.kind == "model":  # else the heartbeats would wait for it
                scored = await asyncio.to_thread(predictions, job, scorer, events, places)
            else:
                scored = predictions(job, scorer, events, places)
            keys = [record.key for record in records]
            await _send(producer, job.output_topic, parts, keys, [orjson.dumps(one) for one in scored])
        if time.monotonic() - committed_s > _COMMIT_S:
            await consumer.commit()
            committed_s = time.monotonic()


async def _send(
    producer: AIOKafkaProducer, topic: str, parts: Iterator[int], keys: list[bytes | None], values: list[bytes]
) -> None:
    """Send in as many record batches as it takes, each to the next partition; returns when they are acknowledged."""
    sent = []
    batch = producer.create_batch()
    for key, value in zip(keys, values, strict=True):
        if batch.append(key=key, value=value, timestamp=None) is None:  # full
            sent.append(await producer.send_batch(batch, topic, partition=next(parts)))
            batch = producer.create_batch()
            batch.append(key=key, value=value, timestamp=None)
    sent.append(await producer.send_batch(batch, topic, partition=next(parts)))
    await asyncio.gather(*sent)


if __name__ == "__main__":
    asyncio.run(run(Job.from_command_line()))
