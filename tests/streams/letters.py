"""Dead letters for tests: as a worker writes them, in their topic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from confluent_kafka import Producer

from streams.envelope import dead_letter
from streams.events import Coordinates, Output, Rejected
from streams.lineage import Redriven, headers_of
from tests.streams.records import FakeRecord

FAILED_S = 1_772_366_400.0  # 2026-03-01T12:00:00Z
STAMP_MS = 1_700_000_000_500


def letter(
    offset: int = 7, *, topic: str = "chat", partition: int = 3, stage: Any = "intake", error: str = "NotJson",
    message: str = "not JSON", failed_s: float = FAILED_S, redrives: int = 0, value: bytes | None = b"v",
    key: bytes | None = b"k", headers: Sequence[tuple[str, bytes | None]] = (("x", b"\x00"), ("x", None)),
) -> Output:  # fmt: skip
    """What a worker publishes of such a record; one that was redriven lay first at offset 1."""
    at = Coordinates(topic, partition, offset)
    if redrives:
        origin = Redriven(at._replace(offset=1), redrives, "2026-02-01T00:00:00.000Z", STAMP_MS - 1)
        headers = headers_of(origin, headers)
    record = FakeRecord(value, offset, topic, partition, STAMP_MS, key, headers)
    return dead_letter(record, topic.split("-")[0], Rejected(at, stage, error, message), failed_s)


def body(**fields: Any) -> dict[str, Any]:
    """The same as the JSON object that is read."""
    found: dict[str, Any] = orjson.loads(orjson.dumps(letter(**fields).value))
    return found


def publish(bootstrap: str, topic: str, records: Sequence[Output | bytes | None]) -> None:
    """Into the dead-letter topic, in order: letters keyed as they are, and anything else."""
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 8 * 1024 * 1024, "log_level": 0})
    for one in records:
        key = one.key if isinstance(one, Output) else "somebody"
        producer.produce(topic, orjson.dumps(one.value) if isinstance(one, Output) else one, key.encode())
    assert producer.flush(30) == 0
