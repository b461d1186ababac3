"""Tiny releases of the three shipped tasks: real artefacts that score thousands of texts a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.datasets import Example
from models.export import make_release
from models.tasks import load_task
from models.training import TrainSettings, train
from tests.tiny_encoder import make_tiny_encoder

WORDS = ("bank", "card", "loan", "shares", "parcel", "fraud", "rent", "refund", "number")


@pytest.fixture(scope="session")
def tiny_releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Release directory by task; the labels are those the task files decide on."""
    folder = tmp_path_factory.mktemp("tiny")
    base = make_tiny_encoder(folder / "base", WORDS)
    labels = {
        "sentiment": ("negative", "neutral", "positive"),
        "intent": ("card_declined", "order_status", "out_of_scope"),
        "risk": ("benign", "fraud", "scam"),
    }
    return {task: _release(task, names, base, folder / task) for task, names in labels.items()}


def _release(task: str, labels: tuple[str, ...], base: Path, out: Path) -> Path:
    examples = [
        Example(f"{WORDS[3 * place + turn % 3]} number {turn}", label)
        for place, label in enumerate(labels)
        for turn in range(40)
    ]
    settings = TrainSettings(epochs=2, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True)
    tiny = load_task(task).model_copy(update={"base": str(base), "max_tokens": 24})
    checkpoint = train(tiny, examples, None, settings, lambda *_: None)
    return make_release(checkpoint, examples, "made for this test", "test", out, lambda *_: None)
