"""Every runtime there is: where it runs, how exactly, and how it is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from models.releases import Precision
from models.runtimes import onnx, openvino, torch
from models.runtimes.parity import EXACT, ROUNDED
from models.runtimes.protocol import Runtime

FLOATS: tuple[Precision, ...] = ("fp32", "fp16")
INT8: tuple[Precision, ...] = ("int8-dynamic", "int8-static")


@dataclass(frozen=True)
class Candidate:
    """A runtime that may serve a release; `load` raises RuntimeUnavailable when it cannot."""

    name: str
    device: Literal["cpu", "cuda"]
    tolerance: float  # how far its probabilities may be from the source's: see `models.runtimes.parity`
    load: Callable[[Path, int], Runtime]  # release directory, slots
    spare: bool = False  # "auto" tries it only where nothing before it beats the reference
    by_name: bool = False  # "auto" does not try it
    precisions: tuple[Precision, ...] = FLOATS  # of the releases it is for


CANDIDATES = (
    Candidate("onnxruntime-fp32", "cpu", EXACT, onnx.load_cpu),
    # Packed rows: a third of the latency at 70% of the load, for a fifth of the texts a second at full load.
    Candidate("onnxruntime-fp32-packed", "cpu", EXACT, onnx.load_packed_cpu, by_name=True),
    Candidate("openvino-fp32", "cpu", EXACT, partial(openvino.load, precision="fp32")),
    Candidate("openvino-fp32-packed", "cpu", EXACT, partial(openvino.load_packed, precision="fp32"), by_name=True),
    Candidate("openvino-bf16", "cpu", ROUNDED, partial(openvino.load, precision="bf16")),
    Candidate("openvino-bf16-packed", "cpu", ROUNDED, partial(openvino.load_packed, precision="bf16"), by_name=True),
    Candidate("onnxruntime-int8", "cpu", ROUNDED, onnx.load_int8_cpu, precisions=INT8),
    Candidate("openvino-int8", "cpu", ROUNDED, openvino.load_int8, precisions=("int8-static",)),
    # Slower than OpenVINO wherever both were measured, and importing PyTorch takes seconds and a gigabyte.
    Candidate("torch-bf16", "cpu", ROUNDED, torch.load_cpu, spare=True),
    Candidate("onnxruntime-cuda-fp32", "cuda", ROUNDED, onnx.load_cuda),  # TF32 has the mantissa of float16
    Candidate("tensorrt-fp16", "cuda", ROUNDED, onnx.load_tensorrt),
    Candidate("torch-cuda-bf16", "cuda", ROUNDED, torch.load_cuda),
)
RUNTIMES = tuple(candidate.name for candidate in CANDIDATES)
REFERENCE = {"cpu": "onnxruntime-fp32", "cuda": "onnxruntime-cuda-fp32"}  # serves a release that has no golden set
INT8_REFERENCE = "onnxruntime-int8"


def reference(precision: Precision, device: str = "cpu") -> str:
    """The runtime whose scores count as a release's own, and that serves when another fails. Int8 is for the CPU."""
    return INT8_REFERENCE if precision in INT8 else REFERENCE[device]


def tolerance_of(name: str) -> float:
    """How far the probabilities of the runtime of this name may be from the source's."""
    return next(candidate.tolerance for candidate in CANDIDATES if candidate.name == name)
