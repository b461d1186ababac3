"""Starter models: small ones, trained on first use from the corpora that come with the package, then kept.

A starter shows the whole way at work; for your own text, train on your own data.
"""

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models import releases
from models.datasets import check, data_hash, read_jsonl
from models.errors import TRAIN_EXTRA, BadTask, MissingExtra
from models.lessons import Lesson
from models.tasks import SHIPPED, Task, load_task, shipped_tasks

RECIPE: dict[str, Any] = {"method": "full", "epochs": 4, "learning_rate": 4e-4, "batch_texts": 32, "seed": 7}
CODE = (
    "held_out.py",
    "lessons.py",
    "losses.py",
    "network.py",
    "origins.py",
    "padding.py",
    "schedule.py",
    "train_settings.py",
    "training.py",
    "windows.py",
    "golden.py",
    "export.py",
)  # a change in them makes another starter

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


def ensure_starter(task_name: str, progress: Progress) -> Path:
    """The starter release of a shipped task; trained now if it is not there yet.

    Of several processes that ask at once, one trains and the others wait for it.
    Raises BadTask for a task without a corpus, MissingExtra where training cannot run.
    """
    task = load_task(task_name)
    corpus = corpus_path(task.name, "train")
    examples = check(read_jsonl(corpus)).examples
    dest = releases.home() / "starter" / task.name / _key(task, data_hash(examples))
    if dest.is_dir():
        return dest
    with _only_one(dest.with_name(f".{dest.name}.lock"), task.name, progress):
        if dest.is_dir():  # another process has made it meanwhile
            return dest
        try:
            from models.export import make_release
            from models.train_settings import TrainSettings
            from models.training import train
        except ImportError as error:
            raise MissingExtra(
                f"the starter model of task {task.name!r} is not there yet, and making it needs the train extra:"
                f" {TRAIN_EXTRA}"
            ) from error
        lesson = Lesson(task, examples, f"starter-{task.name}")
        checkpoint = train([lesson], TrainSettings(**RECIPE), progress)
        return make_release(checkpoint, "starter", dest, progress)


def corpus_path(task_name: str, part: str) -> Path:
    """The shipped corpus of a task; `part` is "train" or "test"."""
    path = SHIPPED / task_name / f"{part}.jsonl"
    if not path.is_file():
        raise BadTask(f"task {task_name!r} has no starter corpus; tasks that have one: {', '.join(shipped_tasks())}")
    return path


def _key(task: Task, data_sha256: str) -> str:
    digest = hashlib.sha256(repr((data_sha256, task.base, task.max_tokens, sorted(RECIPE.items()))).encode())
    for name in CODE:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _only_one(lock: Path, task_name: str, progress: Progress) -> Iterator[None]:
    """Hold a lock file; the kernel lets go of it when the process ends, however it ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"another process trains the {task_name} starter model", 0, 1)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
