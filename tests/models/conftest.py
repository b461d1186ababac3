"""A tiny encoder and a tiny release: the whole way from training to serving in a few seconds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from models.datasets import Example
from models.export import make_release
from models.tasks import Task
from models.training import TrainSettings, train
from tests.models.tiny import BAD, FILLER, GOOD, ignore, make_examples
from tests.tiny_encoder import make_tiny_encoder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised BERT of one layer, 32 wide, with a vocabulary of its own."""
    return make_tiny_encoder(tmp_path_factory.mktemp("tiny"), (*GOOD, *BAD, *FILLER))


@pytest.fixture(scope="session")
def tiny_task(tiny_base: Path) -> Task:
    return Task(name="tone", max_tokens=24, base=str(tiny_base), review_below=0.6)


@pytest.fixture(scope="session")
def tiny_release(tiny_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published release of the tiny encoder, trained for real."""
    examples = make_examples(160)
    settings = TrainSettings(epochs=6, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True)
    checkpoint = train(tiny_task, examples, None, settings, ignore)
    out = tmp_path_factory.mktemp("releases") / "tone-release"
    return make_release(checkpoint, examples, "tone.jsonl", "test", out, ignore)


@pytest.fixture
def data_file(tmp_path: Path) -> Callable[[str, list[Example]], Path]:
    """Write examples as a data file."""

    def write(name: str, examples: list[Example]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(example._asdict()) + "\n" for example in examples), encoding="utf-8")
        return path

    return write
