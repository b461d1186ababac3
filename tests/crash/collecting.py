"""A collector of feedback as the product runs it, once, with a fault or a rule taken out.

`POINTS` says for each step what to wrap and at which passing to strike; `MUTATIONS` take out the rules that keep a
record from being lost or counted twice.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer

from models.learning import store, tables
from models.learning.store import ReadUpTo, VersionManifest
from streams.learning import collector, outbox
from streams.learning.checkpoint import Checkpoint
from streams.learning.collector import Collector
from streams.learning.feedback import Listener
from streams.learning.prediction_index import PredictionIndex
from streams.learning.source_texts import SourceTexts
from streams.learning.task_intake import TaskIntake
from streams.settings import load_settings
from tests.crash.faults import Fault
from tests.crash.placing import Place, after, before

MUTATION = "COLLECTING_MUTATION"


def _in_a_write(fault: Fault) -> None:
    """End with half of a file written."""
    original = tables.write_table

    def write_table(path: Path, columns: Any, rows: tables.Table) -> None:
        original(path, columns, rows)
        if fault.due():
            fault.say()
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            fault.end()

    setattr(store, "write_table", write_table)  # noqa: B010 - the name it is imported by


def _with_letters_on_their_way(fault: Fault) -> None:
    class FaultyProducer(Producer):
        def flush(self, *args: Any) -> int:
            fault.strike()
            return int(super().flush(*args))

    setattr(outbox, "Producer", FaultyProducer)  # noqa: B010 - not a name that the module offers


def _around_the_commit(strikes_first: bool) -> Place:
    def place(fault: Fault) -> None:
        class FaultyConsumer(Consumer):
            def commit(self, *args: Any, **kwargs: Any) -> Any:
                if strikes_first:
                    fault.strike()
                done = super().commit(*args, **kwargs)
                if not strikes_first:
                    fault.strike()
                return done

        setattr(collector, "Consumer", FaultyConsumer)  # noqa: B010 - not a name that the module offers

    return place


POINTS: dict[str, tuple[Place, int]] = {
    "index-not-written": (before(PredictionIndex, "remember"), 1),
    "index-written": (after(PredictionIndex, "remember"), 1),
    "some-understood": (after(Listener, "understand"), 9),
    "texts-found": (after(SourceTexts, "find"), 1),
    "letters-on-their-way": (_with_letters_on_their_way, 1),
    "letters-acknowledged": (after(collector, "send_letters"), 1),
    "in-a-write": (_in_a_write, 1),
    "in-another-write": (_in_a_write, 3),
    "before-a-flush": (before(store, "flush"), 2),
    "before-the-manifest": (before(Path, "write_text"), 1),
    "before-the-rename": (before(Path, "rename"), 1),
    "after-the-rename": (after(Path, "rename"), 1),
    "between-two-tasks": (after(TaskIntake, "write"), 1),
    "in-pruning": (before(shutil, "rmtree"), 1),
    "before-the-checkpoint": (before(Checkpoint, "save"), 1),
    "in-the-checkpoint": (before(Path, "replace"), 1),
    "after-the-checkpoint": (after(Checkpoint, "save"), 1),
    "before-the-commit": (_around_the_commit(True), 1),
    "after-the-commit": (_around_the_commit(False), 1),
}


def _counts_again() -> None:
    """A record that is in a version is taken in once more."""
    setattr(TaskIntake, "has", lambda *_: False)  # noqa: B010


def _checkpoint_first() -> None:
    """What was read counts as done before the versions that hold it are there."""
    original = TaskIntake.write

    def write(self: TaskIntake, feedback: ReadUpTo, now_s: float) -> VersionManifest | None:
        Checkpoint(read=feedback, versions={}, refused={}).save(self._store.folder.parents[1])
        return original(self, feedback, now_s)

    setattr(TaskIntake, "write", write)  # noqa: B010


MUTATIONS: dict[str, Callable[[], None]] = {"counts-again": _counts_again, "checkpoint-first": _checkpoint_first}


def main() -> None:
    """Collect once, in the folder of the environment."""
    settings = load_settings()
    if (name := os.environ.get(MUTATION)) is not None:
        MUTATIONS[name]()
    if (fault := Fault.from_environment()) is not None:
        POINTS[fault.point][0](fault)
    with Collector(settings) as running:
        print(running.collect())


if __name__ == "__main__":
    main()
