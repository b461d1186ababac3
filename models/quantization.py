"""A release's graph in fewer bits: weights kept as float16, or matrix products computed in int8.

fp16           large weights are stored as float16 and widened as the graph is loaded or a row is looked up: half the
               file, the arithmetic as before
int8-dynamic   the linear layers multiply in int8: weights with a scale for each column (per channel), activations with
               a range that each batch brings anew
int8-static    likewise, but the activations' ranges are fixed, from what calibration texts bring

In both int8 forms every row of an embedding table is int8 with a scale of its own. What multiplies two activations
(attention), normalises or decides (the heads) stays in float32: it holds hardly any weights, and rounding it costs the
most. The scheme is that of Jacob et al. 2018 (arXiv 1712.05877), section 2 and appendix A.

Needs the train extra for the onnx package; PyTorch is not needed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from models.padding import Ids

LARGE = 1024  # numbers: smaller tensors stay as they are, together they are less than a percent of a graph
LARGEST_HALF = float(np.finfo(np.float16).max)
STEPS = 127  # of an int8 on each side of 0
PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")  # else onnxruntime asks for it with a warning

Tensors = npt.NDArray[np.float32]


def store_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store every large float32 weight as float16. One beyond float16's range stays as it is."""
    graph = model.graph
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    for tensor in list(graph.initializer):
        if not _large(tensor):
            continue
        values = numpy_helper.to_array(tensor)
        if not np.abs(values).max() <= LARGEST_HALF:
            continue
        halves, name = values.astype(np.float16), tensor.name
        if name in looked_up:
            tensor.CopyFrom(numpy_helper.from_array(halves, name))
            _look_up(graph, name, partial(_half_rows, name))
        else:
            tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}.half"))
            graph.node.insert(0, helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    return model


def quantise_dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """Linear layers in int8, ranges of activations taken from each batch; embeddings as int8."""
    prepared = _prepared(model)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "int8.onnx"
        quantize_dynamic(
            prepared,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=linear_layers(prepared),
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return _int8_embeddings(onnx.load(path))


def quantise_static(model: onnx.ModelProto, calibration: Sequence[tuple[Ids, Ids]]) -> onnx.ModelProto:
    """Linear layers in int8, ranges of activations from calibration batches (token ids and mask, [n, t]) of real texts.

    Raises ValueError without a batch.
    """
    if not calibration:
        raise ValueError("nothing to calibrate on")
    prepared = _prepared(model)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "int8.onnx"
        quantize_static(
            prepared,
            path,
            _Batches(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=linear_layers(prepared),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # What a product gives is added and normalised in float32: rounding that too changed scores by up to 0.68.
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul"]},
        )
        return _int8_embeddings(onnx.load(path))


def linear_layers(model: onnx.ModelProto) -> list[str]:
    """The names of the matrix products with a weight, not those of two activations."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """The calibration batches, as onnxruntime asks for them."""

    def __init__(self, batches: Sequence[tuple[Ids, Ids]]) -> None:
        self._left: Iterator[tuple[Ids, Ids]] = iter(batches)

    def get_next(self) -> dict[str, Ids] | None:
        """The next batch by the names of the inputs; None after the last."""
        batch = next(self._left, None)
        return None if batch is None else {"input_ids": batch[0], "attention_mask": batch[1]}


def _prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that onnxruntime takes: the exporter's notes on shapes are wrong where it transposed a weight."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    note = copy.metadata_props.add()
    note.key, note.value = PREPARED
    return copy


def _int8_embeddings(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = model.graph
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    for tensor in list(graph.initializer):
        if tensor.name in looked_up and _large(tensor):
            rows, scales = int8_rows(numpy_helper.to_array(tensor))
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(rows, name))
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scales"))
            _look_up(graph, name, partial(_int8_rows_of, name))
    return model


def int8_rows(table: Tensors) -> tuple[npt.NDArray[np.int8], Tensors]:
    """A table [rows, width] as int8 and a scale for each row [rows, 1]: at most half a scale off, everywhere."""
    scales = np.abs(table).max(axis=1, keepdims=True) / STEPS
    scales[scales == 0] = 1.0
    return np.round(table / scales).astype(np.int8), scales.astype(np.float32)


def _look_up(graph: onnx.GraphProto, table: str, nodes: Callable[[str, str], list[onnx.NodeProto]]) -> None:
    """Replace every look-up of a table by other nodes, made from the names of its output and of the row numbers."""
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "Gather" and node.input[0] == table:
            new = nodes(node.output[0], node.input[1])
            del graph.node[place]
            for one in reversed(new):
                graph.node.insert(place, one)


def _half_rows(table: str, out: str, ids: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", [table, ids], [f"{out}.half"]),
        helper.make_node("Cast", [f"{out}.half"], [out], to=TensorProto.FLOAT),
    ]


def _int8_rows_of(table: str, out: str, ids: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gather", [table, ids], [f"{out}.int8"]),
        helper.make_node("Cast", [f"{out}.int8"], [f"{out}.steps"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{table}.scales", ids], [f"{out}.scale"]),
        helper.make_node("Mul", [f"{out}.steps", f"{out}.scale"], [out]),
    ]


def _large(tensor: TensorProto) -> bool:
    return bool(tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= LARGE)
