"""PyTorch in bfloat16 with fused attention, on the CPU or CUDA: the encoder built anew from the release's own weights.

Needs the train extra, and is the one part of serving that may import torch: only inside functions, so a worker without
it starts. `torch.compile` is left out: it compiles for minutes at a start, and needs a C++ compiler on the machine.
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import TRAIN_EXTRA, RuntimeUnavailable
from models.releases import CONFIG, MODEL
from models.runtimes.protocol import Floats, Ids, Rectangles

if TYPE_CHECKING:
    import torch

    from models.network import TextClassifier

UNUSED = "encoder.pooler."  # some encoders have a part that no exported graph contains, as it is not asked


class TorchRuntime(Rectangles):
    """A text classifier whose encoder computes in bfloat16."""

    def __init__(self, name: str, device: str, slots: int, model: "torch.nn.Module") -> None:
        self.name = name
        self.device = device
        self.slots = slots
        self._model = model
        self._thread = threading.local()

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        """Logits [n, columns] of token ids [n, t]."""
        import torch

        if self.device == "cpu" and not hasattr(self._thread, "single"):
            torch.set_num_threads(1)  # counts for the calling thread alone
            self._thread.single = True
        with torch.inference_mode():
            ids, mask = self._placed(torch.from_numpy(input_ids)), self._placed(torch.from_numpy(attention_mask))
            logits: Floats = self._model(ids, mask).cpu().numpy()
        return logits

    def _placed(self, values: "torch.Tensor") -> "torch.Tensor":
        return values if self.device == "cpu" else values.pin_memory().to(self.device, non_blocking=True)


def load_cpu(directory: Path, slots: int) -> TorchRuntime:
    """Bfloat16 on a CPU that multiplies in it. Raises RuntimeUnavailable."""
    model = _in_bfloat16(source(directory))
    import torch

    has = torch.cpu.get_capabilities()
    if not (has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16")):
        raise RuntimeUnavailable("this CPU does not compute in bf16")
    return TorchRuntime("torch-bf16", "cpu", slots, model)


def load_cuda(directory: Path, slots: int) -> TorchRuntime:
    """Bfloat16 on CUDA. Raises RuntimeUnavailable."""
    model = _in_bfloat16(source(directory))
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_bf16_supported():
        raise RuntimeUnavailable("this PyTorch finds no CUDA device that computes in bf16")
    return TorchRuntime("torch-cuda-bf16", "cuda", slots, model.to("cuda"))


def source(directory: Path, attention: str = "sdpa") -> "TextClassifier":
    """The trained model in float32, built anew from a release in float32 or float16.

    `attention` is how transformers computes it: fused to serve fast, "eager" to export. Raises RuntimeUnavailable.
    """
    try:
        import onnx  # noqa: F401 - read_weights needs it: say so before the slow imports
        import torch
        from transformers import AutoConfig, AutoModel

        from models.network import TextClassifier
    except ImportError as error:
        raise RuntimeUnavailable(f"not installed ({TRAIN_EXTRA})") from error
    if not (directory / CONFIG).is_file():
        raise RuntimeUnavailable(f"the release has no {CONFIG}: it was made before there was one; train it again")
    weights = {name: torch.from_numpy(array.copy()) for name, array in read_weights(directory / MODEL).items()}
    if "head.weight" not in weights:
        raise RuntimeUnavailable(f"{MODEL} does not name its weights")
    columns, hidden = weights["head.weight"].shape
    config = AutoConfig.from_pretrained(directory)
    try:
        encoder: Any = AutoModel.from_config(config, attn_implementation=attention)
    except ValueError:  # such as MPNet, whose relative positions are added to what fused attention never shows
        encoder = AutoModel.from_config(config, attn_implementation="eager")
    model = TextClassifier(encoder, hidden, columns, dropout=0.0)
    wanted = {name for name in model.state_dict() if not name.startswith(UNUSED)}
    if missing := sorted(wanted - set(weights)):
        raise RuntimeUnavailable(f"{MODEL} does not name the weights of its encoder (such as {missing[0]})")
    model.load_state_dict({name: weights[name] for name in wanted}, strict=False)
    return model.eval()


def _in_bfloat16(model: "TextClassifier") -> "TextClassifier":
    import torch

    model.encoder.to(torch.bfloat16)
    model.encoder.register_forward_hook(_in_float32)  # mean and heads stay in float32: they cost nothing
    return model


def _in_float32(_encoder: Any, _inputs: Any, output: Any) -> Any:
    output.last_hidden_state = output.last_hidden_state.float()
    return output


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """A graph's weights by the names they have in the model it was exported from.

    The exporter stores the weight of a linear layer transposed and without its name, but the bias that is added to the
    product keeps its own: `x.bias` says that the product's weight is `x.weight`.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:  # a weight stored as float16 has its name once it is widened
        if node.op_type == "Cast" and node.input[0] in arrays:
            arrays[node.output[0]] = arrays.pop(node.input[0])
    biases = {
        product: bias
        for node in graph.node
        if node.op_type == "Add"
        for product, bias in (node.input, reversed(node.input))
        if bias in arrays and bias.endswith(".bias")
    }
    weights = {name: numpy_helper.to_array(tensor) for name, tensor in arrays.items()}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays and node.output[0] in biases:
            weights[biases[node.output[0]].removesuffix("bias") + "weight"] = weights[node.input[1]].T
    return weights
