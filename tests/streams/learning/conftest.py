"""Where releases are promoted: an embedded broker with the topic, and a home of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streams.embedded import EmbeddedBroker
from streams.settings import Settings
from tests.streams.learning.promoted import with_topic


@pytest.fixture
def settings(
    embedded: EmbeddedBroker,
    settings_at: Callable[..., Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    """Settings of a broker that has the topic of releases; the home is the test's own."""
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    return with_topic(settings_at(embedded.bootstrap))
