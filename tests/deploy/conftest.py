"""promtool, which reads what Prometheus will read."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# Taken out of the environment: with this prefix it would be read as a setting, and refused as one there is not.
PROMTOOL_IS_REQUIRED = os.environ.pop("STREAMGAUGE_REQUIRE_PROMTOOL", "") == "1"

RunPromtool = Callable[..., None]


@pytest.fixture(scope="session")
def promtool() -> RunPromtool:
    """Runs promtool in a directory, with text on standard input if any; fails with what promtool says."""
    if (path := shutil.which("promtool")) is None:
        message = "promtool is not installed. Debian: apt-get install --no-install-recommends prometheus"
        if PROMTOOL_IS_REQUIRED:
            pytest.fail(f"STREAMGAUGE_REQUIRE_PROMTOOL=1, but {message}", pytrace=False)
        pytest.skip(message)

    def run(*arguments: str, cwd: Path, text: str = "") -> None:
        done = subprocess.run([path, *arguments], cwd=cwd, input=text, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    return run
