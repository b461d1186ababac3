"""A tiny encoder and a tiny release: the whole way from training to serving in a few seconds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from models.datasets import Example
from models.export import make_release
from models.lessons import Lesson
from models.tasks import LabelPolicy, Task
from models.train_settings import TrainSettings
from models.training import Checkpoint, train
from tests.models.tiny import BAD, FILLER, GOOD, MONEY, ignore, make_examples, make_money
from tests.shared import made_once
from tests.tiny_encoder import make_tiny_encoder
from tests.tiny_mpnet import make_tiny_mpnet


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised BERT of one layer, 32 wide, with a vocabulary of its own."""
    return make_tiny_encoder(tmp_path_factory.mktemp("tiny"), (*GOOD, *BAD, *FILLER, *MONEY))


@pytest.fixture(scope="session")
def tiny_mpnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of MPNet's build."""
    return make_tiny_mpnet(tmp_path_factory.mktemp("mpnet"), (*GOOD, *BAD, *FILLER, *MONEY))


@pytest.fixture(scope="session")
def tiny_task(tiny_base: Path) -> Task:
    return Task(name="tone", max_tokens=24, base=str(tiny_base), review_below=0.6)


@pytest.fixture(scope="session")
def tiny_release(tiny_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published release of the tiny encoder, trained for real."""
    examples = make_examples(160)
    settings = TrainSettings(epochs=6, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True)

    def make(directory: Path) -> None:
        checkpoint = train([Lesson(tiny_task, examples, "tone.jsonl")], settings, ignore)
        make_release(checkpoint, "test", directory, ignore)

    return made_once(tmp_path_factory, "tone-release", make)


@pytest.fixture(scope="session")
def money_task(tiny_base: Path) -> Task:
    """A second task for the tiny encoder; of its long texts the window counts in which yen scores highest."""
    yen = {"yen": LabelPolicy(alert_above=0.5)}
    return Task(name="money", max_tokens=24, base=str(tiny_base), labels=yen, long_text="max")


@pytest.fixture(scope="session")
def joint_checkpoint(tiny_task: Task, money_task: Task) -> Checkpoint:
    """One tiny encoder that has learned two tasks of different sizes."""
    lessons = [Lesson(tiny_task, make_examples(160), "tone.jsonl"), Lesson(money_task, make_money(90), "money.jsonl")]
    settings = TrainSettings(epochs=8, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True)
    return train(lessons, settings, ignore)


@pytest.fixture(scope="session")
def joint_release(joint_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every process that runs tests trains the checkpoint, to the same weights; one of them exports it."""
    return made_once(
        tmp_path_factory, "joint-release", lambda directory: make_release(joint_checkpoint, "test", directory, ignore)
    )


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the choice of a runtime is kept: seconds for each release, and no matter to most tests."""
    return made_once(tmp_path_factory, "runtimes", Path.mkdir)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: Path) -> Path:
    """A home that is empty but for what was measured."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "runtimes").symlink_to(measured)
    monkeypatch.setenv("STREAMGAUGE_HOME", str(folder))
    return folder


@pytest.fixture
def data_file(tmp_path: Path) -> Callable[[str, list[Example]], Path]:
    """Write examples as a data file."""

    def write(name: str, examples: list[Example]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(example._asdict()) + "\n" for example in examples), encoding="utf-8")
        return path

    return write
