"""Records of promoted releases, and the topic that holds them."""

from __future__ import annotations

from confluent_kafka import Producer

from streams.events import Release, ReleaseMode, ReleaseRole
from streams.settings import Settings


def release(name: str, task: str = "risk", role: ReleaseRole = "champion", mode: ReleaseMode = "serve") -> Release:
    return {
        "task": task, "role": role, "mode": mode, "share": 1.0, "reference": f"/releases/{name}", "release": name,
        "sha256": f"{len(name):064x}", "promoted_at": "2026-03-01T12:00:00.000Z", "promoted_by": "test",
        "previous": None,
    }  # fmt: skip


def with_topic(settings: Settings) -> Settings:
    """The embedded broker makes the topic when somebody asks for it."""
    Producer({"bootstrap.servers": settings.broker.bootstrap}).list_topics(settings.topics.releases, 10)
    return settings
