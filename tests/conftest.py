"""Brokers for the tests: `embedded` for speed, `kafka` for every claim about delivery."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from models.registry import Registry
from streams.broker import KafkaBroker, kafka_unavailable
from streams.embedded import EmbeddedBroker, embedded_broker
from streams.heap import calm_the_garbage_collector
from streams.settings import Settings, load_settings
from tests.registries import emptied, made_registry
from tests.shared import made_once

# Taken out of the environment: with this prefix it would be read as a setting, and refused as one there is not.
KAFKA_IS_REQUIRED = os.environ.pop("STREAMGAUGE_REQUIRE_KAFKA", "") == "1"

if "PYTEST_XDIST_WORKER" in os.environ:  # it is told the size of a terminal that it does not have
    for size in ("COLUMNS", "LINES"):
        os.environ.pop(size, None)


# On a busy machine an example takes any time, and so does making one up: neither says anything about what is tested.
hypothesis_settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("any-machine")

gc.disable()  # while everything is imported: there is nothing to be found, and each look takes a second in the end

LEFT_OUT = pytest.StashKey[dict[str, int]]()
MOST_PROCESSES = 4  # each takes a gigabyte: PyTorch, the runtimes
MARKED = {"kafka": "on real Kafka", "slow": "that take minutes"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without -m only the fast tests run; the summary says in one line what was left out and how to run it."""
    if config.option.markexpr or config.option.keyword or config.option.collectonly:
        return
    kept, left = list[pytest.Item](), dict.fromkeys(MARKED, 0)
    for item in items:
        mark = next((mark for mark in MARKED if item.get_closest_marker(mark)), None)
        if mark is None:
            kept.append(item)
        else:
            left[mark] += 1
    items[:] = kept
    config.stash[LEFT_OUT] = left


def pytest_collection_finish() -> None:
    """What was imported stays: no look at the garbage, those at the end of pytest included, begins with it again."""
    calm_the_garbage_collector()
    gc.enable()
    atexit.register(gc.unfreeze)  # a library that counts what is left of it at the end finds nothing


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process for each core when the fast tests of a whole directory run; else none but this one.

    A few tests are faster without. Those on real Kafka and those that take minutes start processes of their own and
    watch the clock, and whoever wants to see what they print (-s) can only where they are not others'.
    """
    chosen = config.option.markexpr or config.option.keyword or config.option.capture == "no"
    if chosen or not all(Path(name).is_dir() for name in config.option.file_or_dir):
        return 0
    return min(len(os.sched_getaffinity(0)), MOST_PROCESSES)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left out"] = session.config.stash.get(LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The tests are collected in the processes that run them: the summary's figures come from there."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for mark, count in config.stash.get(LEFT_OUT, {}).items():
        if count:
            missing = kafka_unavailable() if mark == "kafka" else None
            why = f"{missing} Then run" if missing else "not among the fast ones; run"
            terminalreporter.write_line(f"SKIPPED {count} tests {MARKED[mark]}: {why}: python -m pytest -m {mark}")


@pytest.fixture(scope="session")
def runs_kafka() -> None:
    """For tests that start an Apache Kafka of their own: skipped, or failed, where none can be run."""
    if reason := kafka_unavailable():
        message = f"{reason} Then: pytest -m kafka"
        if KAFKA_IS_REQUIRED:
            pytest.fail(f"STREAMGAUGE_REQUIRE_KAFKA=1, but {message}", pytrace=False)
        pytest.skip(message)


@pytest.fixture(scope="session")
def kafka(runs_kafka: None) -> Iterator[KafkaBroker]:
    """One Apache Kafka for all tests marked `kafka`; nobody stops it."""
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture
def embedded() -> Iterator[EmbeddedBroker]:
    """An empty embedded broker of the test's own; topics appear at their first use, with four partitions."""
    with embedded_broker({}) as broker:
        yield broker


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes a name that no other test uses, for topics and groups on a shared broker: unique("news")."""
    return lambda name: f"{name}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def settings_at(unique: Callable[[str], str]) -> Callable[..., Settings]:
    """Makes settings for a broker, with topic names of the test's own: settings_at(bootstrap, replication=3)."""

    def make(bootstrap: str, **topics: int) -> Settings:
        shipped = load_settings(env={})
        suffix = unique("")
        names = shipped.topics.model_dump()
        renamed = {key: value + suffix if isinstance(value, str) else value for key, value in names.items()}
        sources = {
            name: source.model_copy(update={"topic": source.topic + suffix}) for name, source in shipped.sources.items()
        }
        return shipped.model_copy(
            update={
                "broker": shipped.broker.model_copy(update={"bootstrap": bootstrap, "group": unique("group")}),
                "topics": shipped.topics.model_copy(update=renamed | topics),
                "sources": sources,
            }
        )

    return make


@pytest.fixture(scope="session")
def tiny_release_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The release directory of a shipped task: real artefacts that score thousands of texts a second."""
    from tests.tiny_releases import make_tiny_release  # torch takes seconds: only for those who ask

    def of(task: str) -> Path:
        return made_once(tmp_path_factory, f"tiny-{task}", partial(make_tiny_release, task)) / task

    return of


@pytest.fixture(scope="session")
def tiny_releases(tiny_release_of: Callable[[str], Path]) -> dict[str, Path]:
    """Those of all shipped tasks, by task."""
    from tests.tiny_releases import LABELS

    return {task: tiny_release_of(task) for task in LABELS}


@pytest.fixture(scope="session")
def the_registry(tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, Path]:
    home = tmp_path_factory.mktemp("registry-home")
    shutil.copytree(made_once(tmp_path_factory, "registry-home", made_registry), home, dirs_exist_ok=True)
    return made_registry(home), home


@pytest.fixture
def registry(the_registry: tuple[Registry, Path], monkeypatch: pytest.MonkeyPatch) -> Registry:
    """An empty model registry, the default one of `releases.home()`, which is empty too."""
    registry, home = the_registry
    monkeypatch.setenv("STREAMGAUGE_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return emptied(registry, home)
