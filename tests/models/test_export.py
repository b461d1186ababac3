import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

from models import releases
from models.errors import ExportMismatch
from models.export import PARITY_TOLERANCE, compare, export_graph
from models.runtime import OnnxRuntime
from models.tasks import Task
from models.training import Checkpoint, TrainSettings, train
from tests.models.tiny import ignore, make_examples


@pytest.fixture(scope="module")
def checkpoint(tiny_task: Task) -> Checkpoint:
    return train(tiny_task, make_examples(60), None, TrainSettings(epochs=1, threads=1), ignore)


def test_the_graph_is_one_file_with_two_free_axes(tiny_release: Path) -> None:
    assert sorted(os.listdir(tiny_release)) == ["manifest.json", "model.onnx", "tokenizer.json"]
    graph = onnx.load(str(tiny_release / "model.onnx"), load_external_data=False).graph
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
        "logits": ["batch", 2],
    }
    assert {value.type.tensor_type.elem_type for value in graph.input} == {onnx.TensorProto.INT64}


def test_the_manifest_says_where_the_release_comes_from(tiny_release: Path, tiny_base: Path) -> None:
    manifest = releases.verify(tiny_release)
    assert manifest.release.startswith(f"tone-{manifest.created_at:%Y%m%d}-")
    assert (manifest.task, manifest.labels, manifest.max_tokens) == ("tone", ("bad", "good"), 24)
    assert manifest.base.sha256 == releases.file_sha256(tiny_base / "model.safetensors")
    assert (manifest.data.name, manifest.data.rows) == ("tone.jsonl", 160)
    assert (manifest.method, manifest.seed, manifest.recipe) == ("full", 7, "test")
    assert {"torch", "transformers", "tokenizers"} < set(manifest.versions)
    assert manifest.metrics["parity"]["max_abs_logit_difference"] < PARITY_TOLERANCE
    assert manifest.metrics["parity"]["label_agreement"] == 1.0
    assert manifest.metrics["dev"]["n"] == 16
    assert 0 <= manifest.metrics["dev"]["macro_f1"] <= 1


def test_a_graph_that_is_not_the_checkpoint_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    export_graph(checkpoint.model, tmp_path / "model.onnx")
    runtime = OnnxRuntime(tmp_path / "model.onnx", "cpu", threads=1)
    assert compare(checkpoint, runtime)["max_abs_logit_difference"] < 1e-4
    with torch.no_grad():
        checkpoint.model.head.bias.add_(0.01)
    try:
        with pytest.raises(ExportMismatch, match=r"differ from the checkpoint's by 0\.01, allowed 0\.001"):
            compare(checkpoint, runtime)
        checkpoint.model.head.bias.data.fill_(float("nan"))
        with pytest.raises(ExportMismatch, match="differ from the checkpoint's by nan"):
            compare(checkpoint, runtime)
    finally:
        with torch.no_grad():
            checkpoint.model.head.bias.zero_()


def test_a_kill_before_the_rename_leaves_no_visible_release(tiny_release: Path, tmp_path: Path) -> None:
    dest = tmp_path / "releases" / "tone" / "killed"
    script = """
import os, shutil, signal, sys
from pathlib import Path
from models import releases
source, dest = map(Path, sys.argv[1:])
with releases.workplace(dest.parent) as tmp_dir:
    shutil.copytree(source, tmp_dir, dirs_exist_ok=True)
    releases.verify(tmp_dir)
    Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    releases.publish(tmp_dir, dest)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tiny_release), str(dest)],
        cwd=Path(releases.__file__).parents[1],
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert not dest.exists()
    assert all(name.startswith(".") for name in os.listdir(dest.parent))
