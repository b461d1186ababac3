"""The packed graph of a release: the same network for texts that stand side by side in rows; see `models.packing`.

It is a second ONNX file of some hundred kilobytes. Its weights are the bytes of the first, which it points into.
"""

import hashlib
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from onnx import TensorProto
from onnx.external_data_helper import set_external_data

from models.errors import ExportMismatch
from models.network import TextClassifier
from models.onnx_files import tensor_places
from models.releases import MODEL, PACKED

OPSET = 20  # the first with a Gelu operator
SHARED_FROM_BYTES = 1024  # smaller constants are written again

log = logging.getLogger(__name__)


class _Packed(torch.nn.Module):
    """A text classifier that gives the logits of every segment of every row."""

    def __init__(self, model: TextClassifier) -> None:
        super().__init__()
        self.encoder, self.head = model.encoder, model.head
        # Encoders of RoBERTa's family count positions from the one after their padding's.
        embeddings = getattr(model.encoder, "embeddings", None)
        self.first_position = int(getattr(embeddings, "padding_idx", None) or -1) + 1

    def forward(
        self, input_ids: torch.Tensor, position_ids: torch.Tensor, segment_ids: torch.Tensor, segments: torch.Tensor
    ) -> torch.Tensor:
        """Logits [n * s, columns] of rows [n, t] for the segments [s] asked for; padding is segment 0."""
        together = segment_ids[:, None, :] == segment_ids[:, :, None]
        least = torch.finfo(torch.float32).min
        states = self.encoder(
            input_ids=input_ids,
            position_ids=position_ids + self.first_position,
            attention_mask=torch.where(together, 0.0, least)[:, None],
        ).last_hidden_state
        weights = (segment_ids[:, None, :] == segments[None, :, None]).to(states.dtype)  # [n, s, t]
        vectors = (weights @ states) / weights.sum(-1, keepdim=True).clamp(min=1.0)
        logits: torch.Tensor = self.head(vectors.flatten(0, 1))
        return logits


def export_packed(model: TextClassifier, directory: Path) -> bool:
    """Write the packed graph beside the release's model.onnx, whose weights it shares.

    Returns False, and writes nothing, for an encoder that takes no positions or no attention mask of its own.
    """
    ids, positions, segments = torch.ones((3, 2, 7), dtype=torch.int64).unbind()  # the exporter merges equal tensors
    free = torch.export.Dim.DYNAMIC
    try:
        program = torch.onnx.export(
            _Packed(model).eval(),
            (ids, positions, segments, torch.arange(1, 4)),
            input_names=["input_ids", "position_ids", "segment_ids", "segments"],
            output_names=["logits"],
            dynamic_shapes=({0: free, 1: free}, {0: free, 1: free}, {0: free, 1: free}, {0: free}),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    except Exception as error:  # the exporter wraps whatever the encoder raises in errors of its own
        log.warning("the encoder cannot read packed rows: %s", str(error).strip().splitlines()[0])
        return False
    assert program is not None  # noqa: S101 - with dynamo=True it never is
    for node in program.model.graph:
        node.metadata_props.clear()
    with TemporaryDirectory(dir=directory) as scratch:
        program.save(Path(scratch) / PACKED, external_data=False)
        graph = onnx.load(Path(scratch) / PACKED)
    share_weights(graph, (directory / MODEL).read_bytes())
    (directory / PACKED).write_bytes(graph.SerializeToString())
    return True


def share_weights(packed: onnx.ModelProto, model: bytes) -> None:
    """Point every large constant to where its bytes stand in the other file. Raises ExportMismatch when they do not."""
    places = {
        _digest(memoryview(model)[tensor.raw.start : tensor.raw.stop]): tensor.raw
        for tensor in tensor_places(model)
        if tensor.raw is not None and len(tensor.raw) >= SHARED_FROM_BYTES
    }
    for tensor in packed.graph.initializer:
        if len(tensor.raw_data) < SHARED_FROM_BYTES:
            continue
        place = places.get(_digest(tensor.raw_data))
        if place is None:
            raise ExportMismatch(f"{PACKED}: the weight {tensor.name} is not in {MODEL}")
        set_external_data(tensor, MODEL, place.start, len(place))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()
