"""Tiny releases of the three shipped tasks: real artefacts that score thousands of texts a second."""

from __future__ import annotations

from pathlib import Path

from models.datasets import Example
from models.export import make_release
from models.lessons import Lesson
from models.tasks import load_task
from models.train_settings import TrainSettings
from models.training import train
from tests.tiny_encoder import make_tiny_encoder

WORDS = ("bank", "card", "loan", "shares", "parcel", "fraud", "rent", "refund", "number")
LABELS = {  # those the task files decide on
    "sentiment": ("negative", "neutral", "positive"),
    "intent": ("card_declined", "order_status", "out_of_scope"),
    "risk": ("benign", "fraud", "scam"),
}


def make_tiny_release(task: str, folder: Path, examples_a_label: int = 40) -> Path:
    """Train and export the release of a shipped task, as `folder / task`, on an encoder of its own.

    The first three words stand for a task's first label, the next three for its second, and so on.
    """
    base = make_tiny_encoder(folder / "base", WORDS)
    examples = [
        Example(f"{WORDS[3 * place + turn % 3]} number {turn}", label)
        for place, label in enumerate(LABELS[task])
        for turn in range(examples_a_label)
    ]
    settings = TrainSettings(epochs=2, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True)
    tiny = load_task(task).model_copy(update={"base": str(base), "max_tokens": 24})
    checkpoint = train([Lesson(tiny, examples, "made for this test")], settings, lambda *_: None)
    return make_release(checkpoint, "test", folder / task, lambda *_: None)
