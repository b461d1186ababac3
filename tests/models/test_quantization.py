"""Graphs of fewer bits: what is rounded, what is not, and by how much."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from models.padding import Ids, padded
from models.quantization import int8_rows, linear_layers, quantise_dynamic, quantise_static, store_float16
from models.releases import MODEL
from models.runtimes.onnx import session_options
from models.runtimes.protocol import Floats
from models.runtimes.torch import read_weights

Graph = onnx.ModelProto


@pytest.fixture
def graph(joint_release: Path) -> Graph:
    return onnx.load(joint_release / MODEL)


def batches(count: int = 8) -> list[tuple[Ids, Ids]]:
    rng = np.random.default_rng(3)
    return [padded([rng.integers(2, 30, rng.integers(1, 20)).tolist() for _ in range(4)], 0) for _ in range(count)]


def logits(graph: Graph) -> Floats:
    options = session_options()
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate(
        [session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0] for ids, mask in batches()]
    )


def numbers(graph: Graph, kind: int) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in graph.graph.initializer if tensor.data_type == kind)


QUANTISED: list[Callable[[Graph], Graph]] = [quantise_dynamic, lambda graph: quantise_static(graph, batches())]


@given(st.integers(1, 20), st.integers(1, 20), st.floats(1e-6, 1e6), st.integers(0, 99))
@settings(deadline=None)
def test_a_row_is_half_a_step_off_at_most(rows: int, width: int, size: float, seed: int) -> None:
    table = (np.random.default_rng(seed).standard_normal((rows, width)) * size).astype(np.float32)
    table[0] = 0
    steps, scales = int8_rows(table)
    assert steps.dtype == np.int8
    assert scales.shape == (rows, 1)
    assert np.all(np.abs(steps * scales - table) <= scales * 0.5001)
    assert not steps[0].any()


def test_float16_halves_the_weights_and_keeps_the_scores(graph: Graph) -> None:
    before, floats = logits(graph), numbers(graph, TensorProto.FLOAT)
    half = store_float16(graph)
    assert numbers(half, TensorProto.FLOAT16) > 0.8 * floats
    assert numbers(half, TensorProto.FLOAT) < 0.2 * floats
    np.testing.assert_allclose(logits(half), before, atol=0.02)


def test_float16_leaves_what_it_cannot_hold(graph: Graph) -> None:
    table = next(one for one in graph.graph.initializer if "word_embeddings" in one.name)
    values = numpy_helper.to_array(table).copy()
    values[-1, 0] = 1e6  # of a token that no batch has
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    before = logits(graph)
    half = store_float16(graph)
    kept = next(one for one in half.graph.initializer if one.name == table.name)
    assert kept.data_type == TensorProto.FLOAT
    np.testing.assert_allclose(logits(half), before, atol=0.02)


def test_float16_weights_are_still_found_by_their_names(graph: Graph, tmp_path: Path) -> None:
    onnx.save(graph, tmp_path / "before.onnx")
    onnx.save(store_float16(graph), tmp_path / "after.onnx")
    before, after = read_weights(tmp_path / "before.onnx"), read_weights(tmp_path / "after.onnx")
    named = {name for name in before if "." in name}
    assert named <= set(after)
    for name in named:
        np.testing.assert_allclose(after[name].astype(np.float32), before[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("quantise", QUANTISED, ids=["dynamic", "static"])
def test_linear_layers_are_int8_with_a_scale_for_each_column(graph: Graph, quantise: Callable[[Graph], Graph]) -> None:
    before, layers = logits(graph), len(linear_layers(graph))
    products = sum(node.op_type == "MatMul" for node in graph.graph.node)
    assert 0 < layers < products  # those of attention have no weights
    quantised = quantise(graph)
    arrays = {one.name: numpy_helper.to_array(one) for one in quantised.graph.initializer}
    weights = {
        name: array
        for name, array in arrays.items()
        if array.dtype == np.int8 and array.shape in {(32, 32), (32, 64), (64, 32)}
    }
    assert len(weights) == layers
    for name, array in weights.items():
        scale = next(
            value
            for other, value in arrays.items()
            if "scale" in other and other.startswith(name.split("_quantized")[0])
        )
        assert scale.shape == (array.shape[1],)
    assert numbers(quantised, TensorProto.INT8) > 0.8 * numbers(graph, TensorProto.FLOAT)
    rounded = logits(quantised)
    assert not np.array_equal(rounded, before)
    assert np.abs(rounded - before).max() < 0.1 * np.abs(before).max()


def test_fixed_ranges_need_texts(graph: Graph) -> None:
    with pytest.raises(ValueError, match="nothing to calibrate on"):
        quantise_static(graph, [])


def test_fixed_ranges_do_not_depend_on_the_neighbours(graph: Graph) -> None:
    options, quantised = session_options(), quantise_static(graph, batches())
    session = ort.InferenceSession(quantised.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ids, mask = padded([[2, 7, 9, 3], [2, 11, 3], [2, 30, 31, 3]], 0)
    together = session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]
    alone = session.run(["logits"], {"input_ids": ids[:1], "attention_mask": mask[:1]})[0]
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)
