"""A Kafka record made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FakeRecord:
    value: bytes | None
    offset: int = 0
    topic: str = "news"
    partition: int = 0
    timestamp: int | None = 1_760_000_000_000
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
