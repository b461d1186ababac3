import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models import releases, starter
from models.classifier import Classifier
from models.datasets import read_jsonl
from models.errors import BadTask
from models.evaluation import evaluate
from models.starter import corpus_path, ensure_starter
from models.tasks import Task, load_task, shipped_tasks
from tests.models.tiny import ignore


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def quick(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe and an encoder that take a second."""
    monkeypatch.setattr(starter, "RECIPE", {"epochs": 1, "threads": 1})
    monkeypatch.setattr(starter, "load_task", lambda name: tiny(load_task(name), tiny_base))


def tiny(task: Task, base: Path) -> Task:
    return task.model_copy(update={"base": str(base), "max_tokens": 32})


def test_every_shipped_task_has_a_corpus_and_others_have_none() -> None:
    for task in shipped_tasks():
        assert read_jsonl(corpus_path(task, "train"))
        assert read_jsonl(corpus_path(task, "test"))
    with pytest.raises(BadTask, match="'weather' has no starter corpus; tasks that have one: intent, risk, sentiment"):
        ensure_starter("weather", ignore)


@pytest.mark.usefixtures("quick")
def test_two_at_once_train_one_and_then_it_is_kept(home: Path) -> None:
    started, waited = threading.Event(), threading.Event()

    def first(what: str, done: int, total: int) -> None:
        started.set()
        assert waited.wait(20)  # hold the lock until the other has met it

    def second(what: str, done: int, total: int) -> None:
        assert "another process trains" in what
        waited.set()

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(ensure_starter, "sentiment", first)
        assert started.wait(20)
        directory = ensure_starter("sentiment", second)
        assert waited.is_set()
        assert training.result() == directory
    assert [path for path in (home / "starter" / "sentiment").iterdir() if path.is_dir()] == [directory]

    steps: list[str] = []
    assert ensure_starter("sentiment", lambda what, done, total: steps.append(what)) == directory
    assert steps == []
    manifest = releases.verify(directory)
    assert set(manifest.head("sentiment").labels) == set(load_task("sentiment").labels)
    assert manifest.recipe == "starter"
    assert releases.find_release("sentiment") == directory


def test_data_base_and_recipe_all_make_another_starter(monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("risk")
    keys = {starter._key(task, "data"), starter._key(task, "other data")}
    keys.add(starter._key(task.model_copy(update={"base": "other"}), "data"))
    monkeypatch.setattr(starter, "RECIPE", {**starter.RECIPE, "seed": 8})
    keys.add(starter._key(task, "data"))
    assert len(keys) == 4


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("sentiment", 0.55), ("risk", 0.6), ("intent", 0.8)])
def test_a_starter_does_its_job(task: str, least: float) -> None:
    classifier = Classifier.load(ensure_starter(task, ignore), load_task(task), "cpu")
    found = evaluate(classifier, read_jsonl(corpus_path(task, "test")))
    assert found.macro_f1 >= least
