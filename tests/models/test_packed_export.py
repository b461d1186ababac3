"""The packed graph: small, the same weights, and for each text what the text gives alone."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from models import releases
from models.errors import ExportMismatch
from models.network import TextClassifier
from models.packed_export import SHARED_FROM_BYTES, export_packed, share_weights
from models.padding import padded
from models.releases import MODEL, PACKED
from models.runtimes.onnx import load_packed_cpu
from models.training import Checkpoint
from tests.models.filled import empty_graph

MANY = [[2, *range(5, 5 + length), 3] for length in (1, 22, 3, 9, 1, 1, 17, 4, 20, 11)]


def test_a_text_gives_in_a_row_what_it_gives_alone(joint_release: Path, joint_checkpoint: Checkpoint) -> None:
    runtime = load_packed_cpu(joint_release, 1)
    together = runtime.run(*padded(MANY, 0))
    with torch.inference_mode():
        for row, window in zip(together, MANY, strict=True):
            ids = torch.tensor([window])
            alone = joint_checkpoint.model(ids, torch.ones_like(ids)).numpy()[0]
            np.testing.assert_allclose(row, alone, atol=1e-4)
    assert runtime.padded_tokens([len(window) for window in MANY]) == 128  # of 109
    assert runtime.packs


def test_the_weights_are_in_one_file_only(joint_release: Path) -> None:
    assert (joint_release / PACKED).stat().st_size < (joint_release / MODEL).stat().st_size
    graph = onnx.load(joint_release / PACKED, load_external_data=False).graph
    large = [tensor for tensor in graph.initializer if np.prod(tensor.dims) * 4 >= SHARED_FROM_BYTES]
    assert large
    for tensor in large:
        assert {entry.key: entry.value for entry in tensor.external_data}["location"] == MODEL
    assert PACKED in releases.verify(joint_release).files


def test_a_weight_that_the_first_file_does_not_have_is_refused(joint_release: Path) -> None:
    graph = onnx.load(joint_release / PACKED)  # with its weights
    with pytest.raises(ExportMismatch, match=r"packed\.onnx: the weight \S+ is not in model\.onnx"):
        share_weights(graph, empty_graph(b"other bytes"))


def test_each_weight_is_found_whatever_order_the_files_have_them_in() -> None:
    rows = np.random.default_rng(1).standard_normal((40, SHARED_FROM_BYTES // 4)).astype(np.float32)
    rows[7] = rows[3]  # one weight may stand for two
    weights = [numpy_helper.from_array(row, f"w{number}") for number, row in enumerate(rows)]
    model = helper.make_model(helper.make_graph([], "model", [], [], weights)).SerializeToString()
    packed = helper.make_model(helper.make_graph([], "packed", [], [], weights[::-1]))
    share_weights(packed, model)
    for tensor in packed.graph.initializer:
        told = {entry.key: entry.value for entry in tensor.external_data}
        start, length = int(told["offset"]), int(told["length"])
        found = np.frombuffer(model[start : start + length], np.float32)
        np.testing.assert_array_equal(found, rows[int(tensor.name[1:])])
        assert not tensor.raw_data


def test_an_encoder_that_takes_no_positions_has_no_packed_graph(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Plain(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*input_ids.shape, 8)

    assert not export_packed(TextClassifier(Plain(), 8, 2, 0.0), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "the encoder cannot read packed rows" in caplog.text
