"""A champion that learned good and bad; its successor is to learn new words for both, and money as well."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from models.classifier import Classifier
from models.errors import BadKnob
from models.learning.curation import Curated
from models.learning.successor import settings_after, successor
from models.releases import as_parent, read_manifest, write_manifest
from models.tasks import Task
from models.train_settings import TrainSettings
from tests.models.tiny import ignore, make_examples, make_money

KNOBS = {"epochs": 10, "learning_rate": 1e-2, "learn_embeddings": True, "batch_texts": 16, "threads": 1}
OLD = make_examples(80, start=200)


def new_texts(start: int, count: int) -> list[Curated]:
    shifted = [(f"bank {one.text.replace('profit', 'today')}", one.label) for one in make_examples(count, start)]
    money = [(f"{one.text} yen yen yen", "money") for one in make_money(count, start)]
    return [
        Curated(f"chat/0/{row}", text, label, 1.0, float(row), "chat", ("ann",))
        for row, (text, label) in enumerate([*shifted, *money])
    ]


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    return tmp_path


def accuracy(release: Path, task: Task, rows: list[tuple[str, str]]) -> float:
    classifier = Classifier.load(release, task, "cpu", "onnxruntime-fp32")
    chosen = classifier.classify([text for text, _ in rows]).argmax(axis=1)
    return float(np.mean([classifier.labels[column] == label for column, (_, label) in zip(chosen, rows, strict=True)]))


@pytest.mark.slow
def test_a_successor_learns_a_new_label_and_keeps_what_was_known(
    tiny_task: Task, tiny_release: Path, at_home: Path
) -> None:
    settings = settings_after(tiny_release, KNOBS)
    out = at_home / "run" / "candidate"
    out.parent.mkdir()
    (out.parent / ".release-left").mkdir()  # a killed export
    steps: list[str] = []
    made = successor(tiny_task, tiny_release, OLD, new_texts(0, 20), settings, out, lambda what, *_: steps.append(what))
    assert [path.name for path in out.parent.iterdir()] == ["candidate"]
    assert made.head("tone").labels == ("bad", "good", "money")
    assert made.parent == as_parent(tiny_release)
    assert made.base == read_manifest(tiny_release).base
    assert made.metrics["training"] == {
        "why": "the successor of a champion",
        "knobs": settings.model_dump(exclude_defaults=True, exclude={"start"}),
        "new": 40,
        "rehearsed": 80,
    }
    assert accuracy(out, tiny_task, [(row.text, row.label) for row in new_texts(500, 20)]) > 0.6
    known = [(one.text, one.label) for one in make_examples(60, start=700)]
    assert accuracy(out, tiny_task, known) >= accuracy(tiny_release, tiny_task, known) - 0.05

    steps.clear()
    assert successor(tiny_task, tiny_release, OLD, [], settings, out, lambda what, *_: steps.append(what)) == made
    assert steps == []


def test_what_the_champions_data_asked_for_is_kept_and_what_is_given_wins(tiny_release: Path, tmp_path: Path) -> None:
    champion = shutil.copytree(tiny_release, tmp_path / "champion")
    manifest = read_manifest(champion)
    knobs = {"long_texts": "all", "focal_gamma": 1.0, "epochs": 40}
    write_manifest(champion, manifest.model_copy(update={"metrics": {"training": {"knobs": knobs}}, "max_tokens": 48}))
    settings = settings_after(champion, {"focal_gamma": 2.0, "method": "lora"})
    assert (settings.long_texts, settings.focal_gamma, settings.method) == ("all", 2.0, "lora")
    assert (settings.max_tokens, settings.start) == (48, str(champion))
    assert settings.epochs == settings_after(tiny_release, {}).epochs  # the recipe's
    assert isinstance(settings, TrainSettings)
    with pytest.raises(BadKnob, match=r"retrain.knobs: epochz: no such knob"):
        settings_after(champion, {"epochz": 3})


@pytest.mark.slow
def test_a_training_that_was_cut_off_goes_on_and_gives_the_same(
    tiny_task: Task, tiny_release: Path, at_home: Path
) -> None:
    settings = settings_after(tiny_release, KNOBS)
    folders = [at_home / "whole", at_home / "cut"]
    for folder in folders:
        folder.mkdir()

    def cut(what: str, done: int, total: int) -> None:
        if what == "export":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        successor(tiny_task, tiny_release, OLD, new_texts(0, 10), settings, folders[1] / "candidate", cut)
    assert not (folders[1] / "candidate").exists()
    files = [
        successor(tiny_task, tiny_release, OLD, new_texts(0, 10), settings, folder / "candidate", ignore).files
        for folder in folders
    ]
    assert files[0]["model.onnx"] == files[1]["model.onnx"]
