"""Encoders of MPNet's build, as the larger teacher is: learned, exported, packed, served, at full length."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import releases
from models.classifier import Classifier, Model
from models.datasets import Example
from models.errors import BadBase
from models.export import make_release
from models.lessons import Lesson
from models.releases import PACKED, read_manifest
from models.tasks import Task
from models.train_settings import TrainSettings
from models.training import train
from tests.models.tiny import ignore, make_examples

BF16 = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
SETTINGS = TrainSettings(epochs=6, learning_rate=1e-2, batch_texts=16, threads=1, learn_embeddings=True)

STRANGERS = tuple(Example(f"{number} 0 1 2", "oos") for number in range(9))


@pytest.fixture(scope="module")
def mpnet_task(tiny_mpnet: Path) -> Task:
    return Task(name="tone", max_tokens=128, base=str(tiny_mpnet))


@pytest.fixture(scope="module")
def mpnet_release(mpnet_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = train([Lesson(mpnet_task, make_examples(160), "tone.jsonl")], SETTINGS, ignore)
    checkpoint = replace(checkpoint, heads=(replace(checkpoint.heads[0], strangers=STRANGERS),))
    return make_release(checkpoint, "test", tmp_path_factory.mktemp("mpnet") / "release", ignore)


def test_it_learns_and_its_export_agrees(mpnet_release: Path) -> None:
    manifest = read_manifest(mpnet_release)
    assert manifest.head("tone").metrics["dev"]["macro_f1"] >= 0.8
    assert manifest.metrics["parity"]["max_abs_logit_difference"] < 1e-4
    assert manifest.metrics["parity"]["packed"]["max_abs_logit_difference"] < 1e-4  # distances are those within a text
    assert PACKED in manifest.files


def test_development_texts_out_of_scope_give_a_release_a_scope(mpnet_release: Path, tiny_release: Path) -> None:
    head = releases.verify(mpnet_release).head("tone")
    assert head.scope is not None
    assert (head.scope.n_outside, head.scope.asked_false_acceptance) == (9, 0.2)
    assert head.scope.false_rejection <= 0.03
    assert head.metrics["dev"]["n"] == 16
    assert Model.load(mpnet_release, "cpu", "onnxruntime-fp32").heads["tone"].scope == head.scope
    assert releases.verify(tiny_release).head("tone").scope is None


@pytest.mark.parametrize(
    "runtime",
    [
        "onnxruntime-fp32-packed",
        "openvino-fp32",
        pytest.param("torch-bf16", marks=pytest.mark.skipif(not BF16, reason="this CPU does not compute in bf16")),
    ],
)
def test_every_kind_of_runtime_serves_it(mpnet_task: Task, mpnet_release: Path, runtime: str) -> None:
    texts = [example.text for example in make_examples(20, start=700)] + ["", "profit " * 126]
    reference = Classifier.load(mpnet_release, mpnet_task, "cpu", "onnxruntime-fp32").classify(texts)
    found = Classifier.load(mpnet_release, mpnet_task, "cpu", runtime).classify(texts)
    np.testing.assert_allclose(found, reference, atol=0.05 if runtime == "torch-bf16" else 1e-4)


def test_the_longest_text_it_reads_is_two_tokens_short_of_its_positions(mpnet_task: Task, mpnet_release: Path) -> None:
    model = Model.load(mpnet_release, "cpu", "onnxruntime-fp32")
    (longest,) = model.encode(["profit " * 126])[0].windows
    assert len(longest) == 128  # of 130 positions
    assert np.isfinite(model.logits([longest])).all()
    with pytest.raises(BadBase, match="reads 128 tokens at most, and the task's max_tokens is 129"):
        train([Lesson(mpnet_task.model_copy(update={"max_tokens": 129}), make_examples(20), "x")], SETTINGS, ignore)
