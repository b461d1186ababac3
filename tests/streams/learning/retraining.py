"""A small world to retrain in: a tiny champion, and opinions on what it has never seen. Also a job that is killed."""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from models.datasets import Example
from models.learning.curation import CurationSettings
from models.learning.old_data import OldData
from models.learning.opinions import Opinion, Position, Statement
from models.learning.store import Contents, DatasetStore, ReadUpTo
from models.learning.verdict import GateSettings
from models.releases import home
from models.tasks import load_task
from streams.learning.retrain import Job, retrain
from streams.settings import Settings, load_settings
from tests.tiny_releases import LABELS, WORDS

KNOBS = {"epochs": 6, "learning_rate": 1e-2, "learn_embeddings": True, "batch_texts": 16, "threads": 1}
NEW = "refund_wanted"  # the words of `out_of_scope` with others around them


def ignore(what: str, done: int, total: int) -> None:
    """A progress that nobody watches."""


def old_texts(start: int, count: int) -> list[Example]:
    return [
        Example(f"{WORDS[3 * place + row % 3]} number {row}", label)
        for place, label in enumerate(LABELS["intent"])
        for row in range(start, start + count)
    ]


def opinion(row: int) -> Opinion:
    """A third of the texts ask for what nobody had a label for."""
    known = LABELS["intent"][row % 2]
    word = WORDS[3 * (row % 2) + row % 3]
    text, label = (f"loan loan parcel {row} loan", NEW) if row % 3 == 0 else (f"{word} number number {row}", known)
    time_s = 1e9 + 3600 * row
    return Opinion("intent", f"chat/0/{row}", text, label, f"annotator{row % 7}", time_s + 60, time_s, "chat")


def store(folder: Path, opinions: list[Opinion]) -> None:
    ledger = {(one.key, one.annotator): Statement(one, Position(0, at)) for at, one in enumerate(opinions)}
    read = ReadUpTo(topic="feedback", topic_id="", offsets={0: len(opinions)})
    DatasetStore("intent", folder).add(Contents(ledger), {}, read, datetime(2026, 3, 1, tzinfo=UTC))


def job_of(settings: Settings, champion: Path) -> Job:
    """A job below `home()`, with all that depends on a machine's speed left aside."""
    every = {"annotator_share": 1.0, "source_share": 1.0, "most_lost": 0.0, "alike": 1.0}
    chosen = settings.retrain.model_copy(
        update={
            "knobs": KNOBS,
            "curation": CurationSettings.model_validate(every),
            "gate": GateSettings(latency_ratio=100, robustness_texts=0, ece_margin=0.9, margin=0.9, part_margin=0.9),
        }
    )
    models = settings.models.model_copy(update={"device": "cpu", "runtime": "onnxruntime-fp32"})
    old = OldData(old_texts(0, 30), old_texts(500, 10))
    settings = settings.model_copy(update={"retrain": chosen, "models": models})
    return Job(settings, load_task("intent"), champion, home() / "learning" / "intent", old, ignore)


def main() -> None:
    """Retrain, and end by SIGKILL at the progress call of this number, 0 for never; the last line says how many."""
    champion, kill_at = Path(sys.argv[1]), int(sys.argv[2])
    calls = 0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    outcome = retrain(job_of(load_settings(), champion)._replace(progress=progress))
    print(outcome.end, calls)


if __name__ == "__main__":
    main()
