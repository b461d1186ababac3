"""OpenVINO on the CPU: bfloat16 where the CPU multiplies in it, else float32."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import LifoQueue
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.errors import RuntimeUnavailable
from models.releases import MODEL
from models.runtimes.protocol import Floats, Ids

if TYPE_CHECKING:
    import openvino

TELEMETRY = "openvino_telemetry"
PRECISIONS = {"bf16": "bf16", "fp32": "f32"}  # ours, and OpenVINO's word


class OpenVinoRuntime:
    """A compiled model with one infer request for each run in flight, on a stream and a core of its own."""

    device = "cpu"

    def __init__(self, name: str, slots: int, compiled: "openvino.CompiledModel") -> None:
        self.name = name
        self.slots = slots
        # A request keeps the buffers of the largest batch it saw, so the last one used is taken first.
        self._free: LifoQueue[openvino.InferRequest] = LifoQueue()
        for _ in range(slots):
            self._free.put(compiled.create_infer_request())

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        """Logits [n, columns] of token ids [n, t]."""
        request = self._free.get()
        try:
            request.infer({"input_ids": input_ids, "attention_mask": attention_mask}, share_inputs=True)
            logits: Floats = request.get_output_tensor(0).data.copy()  # the request's own memory, until its next run
            return logits
        finally:
            self._free.put(request)


def load(directory: Path, slots: int, precision: Literal["bf16", "fp32"]) -> OpenVinoRuntime:
    """A release's graph in this precision. Raises RuntimeUnavailable without OpenVINO, or bf16 in the CPU."""
    core = _core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise RuntimeUnavailable("this CPU does not compute in bf16")
    options = {
        "NUM_STREAMS": slots,
        "INFERENCE_NUM_THREADS": slots,
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        # Several workers on one machine would be pinned to the same cores, and so would the rest of this process.
        "ENABLE_CPU_PINNING": False,
        # It keeps compiled kernels of the shapes it saw, 5,000 by default: 1 GiB after 1,200 shapes of batches. Without
        # any a text alone takes twice as long; this few bring that back, and memory stays where it is.
        "CPU_RUNTIME_CACHE_CAPACITY": 256,
    }
    runtime = OpenVinoRuntime(
        f"openvino-{precision}", slots, core.compile_model(str(directory / MODEL), "CPU", options)
    )
    # The first tensor ever made must be made by one thread: two at once wait for each other for ever, one holding the
    # interpreter's lock and the other the lock of the bindings' first use of NumPy.
    one_token = np.ones((1, 1), np.int64)
    runtime.run(one_token, one_token)
    return runtime


@cache
def _core() -> "openvino.Core":
    try:
        with _without_telemetry():
            import openvino
    except ImportError as error:
        raise RuntimeUnavailable("not installed (pip install openvino)") from error
    return openvino.Core()


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Hide the package through which importing OpenVINO reports to its makers: nothing here calls the internet."""
    before = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # then importing it fails, as if not there
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]
        if before is not None:
            sys.modules[TELEMETRY] = before
