import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import BertConfig

from models import releases
from models.classifier import Model
from models.errors import ExportMismatch
from models.export import PARITY_TOLERANCE, compare, held_out, pass_golden
from models.golden import read_golden
from models.lineage import this_code
from models.padding import padded
from models.runtimes import REFERENCE, Runtime
from models.runtimes.onnx import load_cpu, load_packed_cpu
from models.runtimes.parity import EXACT
from models.softmax import softmax
from models.tasks import Task
from models.training import Checkpoint

FILES = [
    "card.md",
    "config.json",
    "golden.json",
    "manifest.json",
    "model.onnx",
    "packed.onnx",
    "profile.json",
    "tokenizer.json",
]


def test_the_graph_is_one_file_with_two_free_axes(tiny_release: Path) -> None:
    assert sorted(os.listdir(tiny_release)) == FILES
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


def test_the_graph_tells_nothing_of_the_machine_that_made_it(tiny_release: Path) -> None:
    content = (tiny_release / "model.onnx").read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"stack_trace" not in content


def test_the_manifest_says_where_the_release_comes_from(tiny_release: Path, tiny_base: Path) -> None:
    manifest = releases.verify(tiny_release)
    assert manifest.release.startswith(f"tone-{manifest.created_at:%Y%m%d}-")
    (head,) = manifest.heads
    assert (head.task, head.labels, manifest.max_tokens) == ("tone", ("bad", "good"), 24)
    assert manifest.base.sha256 == releases.file_sha256(tiny_base / "model.safetensors")
    assert (head.data.name, head.data.rows) == ("tone.jsonl", 160)
    assert (manifest.method, manifest.seed, manifest.recipe) == ("full", 7, "test")
    assert {"torch", "transformers", "tokenizers"} < set(manifest.versions)
    assert manifest.metrics["parity"]["max_abs_logit_difference"] < PARITY_TOLERANCE
    assert manifest.metrics["parity"]["label_agreement"] == 1.0
    assert manifest.metrics["parity"]["packed"]["max_abs_logit_difference"] < PARITY_TOLERANCE
    for found in (manifest.metrics["parity"], manifest.metrics["parity"]["packed"]):
        assert (found["golden"]["texts"], found["golden"]["different_labels"]) == (16, 0.0)
        assert found["golden"]["furthest_score"] < EXACT
    assert head.metrics["dev"]["n"] == 16
    assert 0 <= head.metrics["dev"]["macro_f1"] <= 1


def test_the_config_builds_the_encoder_again_and_names_no_path(tiny_release: Path, tiny_base: Path) -> None:
    text = (tiny_release / "config.json").read_text()
    assert str(tiny_base) not in text
    config = BertConfig.from_dict(json.loads(text))
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (
        32,
        1,
        BertConfig.from_pretrained(tiny_base).vocab_size,
    )


def test_one_graph_holds_all_heads_each_with_the_checkpoints_logits(
    joint_checkpoint: Checkpoint, joint_release: Path, tiny_task: Task, money_task: Task
) -> None:
    manifest = releases.verify(joint_release)
    assert manifest.release.startswith("tone-money-")
    assert manifest.tasks == ("tone", "money")
    assert manifest.head("money").labels == ("dollar", "euro", "yen")
    assert [head.data.name for head in manifest.heads] == ["tone.jsonl", "money.jsonl"]
    assert [head.metrics["dev"]["n"] for head in manifest.heads] == [16, 9]
    model = Model.load(joint_release, "cpu", REFERENCE["cpu"], threads=1)
    assert [(head.task, head.columns) for head in model.heads.values()] == [
        ("tone", slice(0, 2)),
        ("money", slice(2, 5)),
    ]
    windows = [one.windows[0] for one in model.encode(held_out(joint_checkpoint, 25))]
    rows = model.run(windows)
    ids, mask = padded(windows, 0)
    with torch.inference_mode():
        source = joint_checkpoint.model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    for head in joint_checkpoint.heads:
        expected = softmax(head.calibration.applied(source[:, head.columns]))
        np.testing.assert_allclose(rows[head.task.name], expected, atol=1e-4)


def test_held_out_texts_are_of_each_task_in_turn(joint_checkpoint: Checkpoint) -> None:
    tone, money = ([example.text for example in head.dev_examples] for head in joint_checkpoint.heads)
    assert held_out(joint_checkpoint, 5) == [tone[0], money[0], tone[1], money[1], tone[2]]
    assert sorted(held_out(joint_checkpoint, 1000)) == sorted([*tone, *money])


def test_a_graph_that_is_not_the_checkpoint_is_refused(joint_checkpoint: Checkpoint, joint_release: Path) -> None:
    runtime, bias = load_cpu(joint_release, 1), joint_checkpoint.model.head.bias
    assert compare(joint_checkpoint, runtime)["max_abs_logit_difference"] < 1e-4
    before = bias.detach().clone()
    try:
        with torch.no_grad():
            bias.add_(0.01)
        with pytest.raises(ExportMismatch, match=r"differ from the checkpoint's by 0\.01, allowed 0\.001"):
            compare(joint_checkpoint, runtime)
        bias.data.fill_(float("nan"))
        with pytest.raises(ExportMismatch, match="differ from the checkpoint's by nan"):
            compare(joint_checkpoint, runtime)
    finally:
        bias.data.copy_(before)


@pytest.mark.parametrize("load", [load_cpu, load_packed_cpu])
def test_a_graph_must_give_each_heads_labels_and_scores_of_the_golden_set(
    joint_checkpoint: Checkpoint, joint_release: Path, load: Callable[[Path, int], Runtime]
) -> None:
    runtime, golden = load(joint_release, 1), read_golden(joint_release)
    assert golden is not None
    heads = [head.columns for head in joint_checkpoint.heads]
    found = pass_golden(runtime, golden, heads)
    assert (found["texts"], found["different_labels"]) == (len(golden.windows), 0.0)
    logits = golden.logits.copy()
    logits[3, 2:] = np.roll(logits[3, 2:], 1)  # of the second head, and one text is more than 0.5% of them
    with pytest.raises(ExportMismatch, match=rf"{runtime.name}, gives another label for 4\.0% of the golden texts"):
        pass_golden(runtime, golden._replace(logits=logits), heads)
    logits = golden.logits.copy()
    logits[3, 0] += 0.1
    with pytest.raises(ExportMismatch, match=r"gives probabilities up to \S+ from the golden ones, allowed 0\.001"):
        pass_golden(runtime, golden._replace(logits=logits), heads)


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


def test_a_release_says_which_code_made_it_and_has_a_card(tiny_release: Path) -> None:
    manifest = releases.verify(tiny_release)
    assert manifest.code == this_code()
    text = (tiny_release / "card.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {manifest.release}\n")
    assert "### tone, by label" in text
    assert str(tiny_release.parent) not in text
