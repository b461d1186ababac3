"""The README's examples are run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streams.settings import load_settings

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^ *```(\w*)\n(.*?)^ *```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run(command: str, timeout_s: float, stdin: str = "") -> str:
    """The end of a README command: what follows `streamgauge`, run with this interpreter."""
    arguments = command.split("streamgauge ", 1)[1].split()
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        input=stdin, capture_output=True, text=True, timeout=timeout_s, cwd=README.parent, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_first_two_examples_are_the_commands_that_do_all_the_set_up() -> None:
    demo, tests = BLOCKS[0][1].strip(), BLOCKS[1][1].strip()
    assert demo == "python3 -m venv .venv && .venv/bin/pip install -q '.[train]' && .venv/bin/streamgauge demo"
    assert tests == (README.parent / ".ci" / "test-command").read_text(encoding="utf-8").strip()


def test_the_example_configuration_is_valid(tmp_path: Path) -> None:
    text, *_ = [body for language, body in BLOCKS if language == "toml"]
    file = tmp_path / "streamgauge.toml"
    file.write_text("\n".join(line.strip() for line in text.splitlines()), encoding="utf-8")
    assert sorted(load_settings(file).active_sources) == ["news", "tickets", "transactions"]


def test_a_release_of_the_registry_may_be_named(tmp_path: Path) -> None:
    text = next(body for language, body in BLOCKS if language == "toml" and body.lstrip().startswith("[models]"))
    file = tmp_path / "streamgauge.toml"
    file.write_text(text, encoding="utf-8")
    assert load_settings(file, env={}).models.releases == {"risk": "models:/risk@champion"}


def test_the_ways_into_a_secured_cluster_are_valid(tmp_path: Path) -> None:
    ways = [body for language, body in BLOCKS if language == "toml" and not body.lstrip().startswith("[")]
    file = tmp_path / "streamgauge.toml"
    mechanisms = []
    for text in ways:
        file.write_text("[broker]\n" + text, encoding="utf-8")
        broker = load_settings(file, env={}).broker
        assert broker.tls
        mechanisms.append(broker.mechanism if broker.authenticates else "mTLS")
    assert mechanisms == ["mTLS", "SCRAM-SHA-512", "OAUTHBEARER", "OAUTHBEARER"]


@pytest.mark.slow
def test_the_first_example_runs() -> None:
    """With starter models that are kept, or trained now: minutes the first time."""
    last = json.loads(run(BLOCKS[0][1].strip() + " --seconds 10 --json", 600).splitlines()[-1])
    assert last["lost"] == 0
    assert last["predictions"] > 100
    assert last["alerts"] > 0 and last["routes"] > 0 and last["dead_letters"] > 0


@pytest.mark.slow
def test_a_text_is_scored_as_the_readme_says() -> None:
    (command,) = [body for _, body in BLOCKS if "| streamgauge classify" in body]
    text = command.split('"')[1]
    scored = json.loads(run(command.strip(), 120, text + "\n"))
    assert scored["text"] == text
    assert scored["label"] == "negative"
