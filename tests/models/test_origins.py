"""A warm start: what a release knows, the training that goes on from it knows before its first step."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from models import releases
from models.classifier import Classifier
from models.datasets import Example
from models.errors import BadKnob, BadRelease
from models.lessons import Lesson
from models.origins import origin_of
from models.quantization import store_float16
from models.releases import CONFIG, MODEL, as_parent, file_sha256, read_manifest, write_manifest
from models.tasks import Task
from models.train_settings import TrainSettings, settings_of
from models.training import Checkpoint, train
from tests.models.test_training import logits_of
from tests.models.tiny import ignore, make_examples, make_money

STILL = {"epochs": 1, "learning_rate": 1e-12, "head_learning_rate": 1e-12, "threads": 1, "head_start": "centroids"}
TEXTS = [example.text for example in make_examples(60, start=700)]
LABELS = [example.label for example in make_examples(60, start=700)]


def still(task: Task, examples: list[Example], start: Path, **knobs: object) -> Checkpoint:
    """A training that goes on from a release and learns nothing."""
    settings = settings_of({**STILL, "start": str(start), **knobs}, "test")
    return train([Lesson(task, examples, "examples.jsonl")], settings, ignore)


def labelled(checkpoint: Checkpoint, texts: list[str]) -> list[str]:
    (head,) = checkpoint.heads
    return [head.labels[column] for column in logits_of(checkpoint, texts).argmax(axis=1)]


@pytest.mark.parametrize("method", ["full", "lora", "head"])
def test_a_training_begins_with_all_that_the_release_knows(method: str, tiny_task: Task, tiny_release: Path) -> None:
    checkpoint = still(tiny_task, make_examples(40), tiny_release, method=method)
    served = Classifier.load(tiny_release, tiny_task, "cpu", "onnxruntime-fp32")
    np.testing.assert_allclose(logits_of(checkpoint, TEXTS), served.read(TEXTS).logits, atol=1e-4)
    assert checkpoint.base == read_manifest(tiny_release).base


def test_of_a_release_of_several_tasks_a_task_takes_its_own_head(
    money_task: Task, tiny_task: Task, joint_release: Path
) -> None:
    texts = [example.text for example in make_money(30, start=700)]
    money = still(money_task, make_money(30), joint_release)
    served = Classifier.load(joint_release, money_task, "cpu", "onnxruntime-fp32")
    np.testing.assert_allclose(logits_of(money, texts), served.read(texts).logits[:, 2:], atol=1e-4)


def test_a_head_grows_by_a_label_that_begins_where_its_few_examples_are(tiny_task: Task, tiny_release: Path) -> None:
    new = [Example(f"{one.text} yen yen yen", "money") for one in make_money(40)]
    grown = still(tiny_task, [*make_examples(60), *new[:10]], tiny_release)
    assert grown.heads[0].labels == ("bad", "good", "money")
    assert np.mean([label == "money" for label in labelled(grown, [one.text for one in new[10:]])]) > 0.6
    served = Classifier.load(tiny_release, tiny_task, "cpu", "onnxruntime-fp32")
    before = [served.labels[column] for column in served.classify(TEXTS).argmax(axis=1)]
    assert np.mean([now == then for now, then in zip(labelled(grown, TEXTS), before, strict=True)]) > 0.6


def test_what_was_compressed_goes_on_from_its_weights_or_from_what_it_was_made_of(
    tiny_task: Task, tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    manifest = read_manifest(tiny_release)
    half_size, int8 = shutil.copytree(tiny_release, tmp_path / "fp16"), shutil.copytree(tiny_release, tmp_path / "int8")
    onnx.save(store_float16(onnx.load(tiny_release / MODEL)), half_size / MODEL)
    files = manifest.files | {MODEL: file_sha256(half_size / MODEL)}
    write_manifest(half_size, manifest.model_copy(update={"precision": "fp16", "files": files}))
    compressed = {"precision": "int8-dynamic", "release": "smaller", "parent": as_parent(tiny_release)}
    write_manifest(int8, manifest.model_copy(update=compressed))
    lesson = Lesson(tiny_task, make_examples(40), "examples.jsonl")

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        encoder: torch.nn.Module = origin_of(TrainSettings(start=str(folder)), [lesson], 24).encoder
        return dict(encoder.named_parameters())

    whole, half = weights(tiny_release), weights(half_size)
    assert all(torch.allclose(whole[name], half[name], atol=1e-3) for name in whole if "pooler" not in name)
    at = releases.home() / "releases" / "tone" / manifest.release
    shutil.copytree(tiny_release, at)
    of_parent = weights(int8)
    assert all(torch.equal(whole[name], of_parent[name]) for name in whole if "pooler" not in name)
    write_manifest(at, read_manifest(at).model_copy(update={"seed": 8}))
    with pytest.raises(BadRelease, match=r"is not the release that .* was made from"):
        weights(int8)


def test_what_cannot_be_gone_on_from_is_refused(tiny_task: Task, tiny_release: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRelease, match="it knows bad, good: none of the data's labels"):
        still(tiny_task, make_money(30), tiny_release)
    with pytest.raises(BadKnob, match="start: a release brings its own encoder"):
        settings_of({"start": "x", "base": "y"}, "test")
    old = shutil.copytree(tiny_release, tmp_path / "old")
    manifest = read_manifest(old)
    files = {name: sha256 for name, sha256 in manifest.files.items() if name != CONFIG}
    write_manifest(old, manifest.model_copy(update={"files": files}))
    (old / CONFIG).unlink()
    with pytest.raises(BadRelease, match="train it again"):
        still(tiny_task, make_examples(40), old)


def test_a_killed_training_goes_on_from_its_state_and_not_from_the_release(
    tiny_task: Task, tiny_release: Path, tmp_path: Path
) -> None:
    lesson = Lesson(tiny_task, make_examples(64), "tone.jsonl", make_examples(16, start=300))
    settings = TrainSettings(start=str(tiny_release), epochs=2, learning_rate=1e-3, batch_texts=16, threads=1)

    def die(what: str, done: int, total: int) -> None:
        if done == 5:
            raise InterruptedError

    unbroken = train([lesson], settings, ignore)
    with pytest.raises(InterruptedError):
        train([lesson], settings, die, state_folder=tmp_path, save_every_s=0)
    resumed = train([lesson], settings, ignore, state_folder=tmp_path)
    np.testing.assert_array_equal(logits_of(unbroken, TEXTS), logits_of(resumed, TEXTS))


def learned(task: Task, start: Path, **given: np.ndarray) -> float:
    """How right it is after it learned every text with the wrong label and with the right one, as `given` says."""
    wrong = [Example(one.text, "bad" if one.label == "good" else "good") for one in make_examples(160)]
    lesson = Lesson(task, [*wrong, *make_examples(160)], "x", make_examples(20, start=300), **given)
    settings = TrainSettings(
        start=str(start), epochs=3, learning_rate=1e-2, batch_texts=16, threads=1, distill_weight=1.0,
        learn_embeddings=True,
    )  # fmt: skip
    return float(
        np.mean([a == b for a, b in zip(labelled(train([lesson], settings, ignore), TEXTS), LABELS, strict=True)])
    )


def test_an_example_counts_as_much_as_its_weight(tiny_task: Task, tiny_release: Path) -> None:
    for right, expected in ((100.0, True), (0.01, False)):
        weights = np.array([1.0] * 160 + [right] * 160, np.float32)
        assert (learned(tiny_task, tiny_release, weights=weights) > 0.5) == expected


def test_where_the_teacher_says_nothing_the_label_counts(tiny_task: Task, tiny_release: Path) -> None:
    right = [[0.02, 0.98] if one.label == "good" else [0.98, 0.02] for one in make_examples(160)]
    soft = np.array([*right, *[[0.0, 0.0]] * 160], np.float32)
    assert learned(tiny_task, tiny_release, soft_targets=soft) > 0.9
