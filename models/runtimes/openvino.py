"""OpenVINO on the CPU: bfloat16 where the CPU multiplies in it, else float32; int8 where the graph says so.

For a graph whose shapes are free OpenVINO prepares itself anew whenever the shape of a batch changes, which takes as
long as 20 to 40 tokens. So there are two runtimes: one for batches of any shape, and one for packed rows, which is
compiled for each size of row and never prepares anything again.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from queue import LifoQueue
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.errors import RuntimeUnavailable
from models.packing import TOKENS_A_TEXT, row_sizes
from models.releases import MODEL, PACKED, read_manifest
from models.runtimes.protocol import Floats, Ids, Rectangles
from models.runtimes.rows import NO_PACKED, Rows

if TYPE_CHECKING:
    import openvino

TELEMETRY = "openvino_telemetry"
Precision = Literal["bf16", "fp32"]
PRECISIONS = {"bf16": "bf16", "fp32": "f32"}  # ours, and OpenVINO's word
LONGEST_PACKED = 512  # tokens of a text; every size of row keeps a copy of the weights in memory


class OpenVinoRuntime(Rectangles):
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


class PackedOpenVinoRuntime(Rows):
    """A model compiled for each size of row, with one infer request of each for every run in flight."""

    device = "cpu"

    def __init__(self, name: str, slots: int, compiled: "Mapping[int, openvino.CompiledModel]") -> None:
        super().__init__(tuple(compiled))
        self.name = name
        self.slots = slots
        self._free: LifoQueue[dict[int, openvino.InferRequest]] = LifoQueue()
        for _ in range(slots):
            self._free.put({size: model.create_infer_request() for size, model in compiled.items()})

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        """Logits [n, columns] of token ids [n, t]."""
        requests = self._free.get()

        def run_row(inputs: dict[str, Ids]) -> Floats:
            request = requests[inputs["input_ids"].shape[1]]
            request.infer(inputs, share_inputs=True)
            logits: Floats = request.get_output_tensor(0).data.copy()  # the request's own memory, until its next run
            return logits

        try:
            return self.run_rows(run_row, input_ids, attention_mask)
        finally:
            self._free.put(requests)


def load(directory: Path, slots: int, precision: Precision) -> OpenVinoRuntime:
    """A release's graph in this precision. Raises RuntimeUnavailable without OpenVINO, or bf16 in the CPU."""
    return _loaded(f"openvino-{precision}", directory, slots, precision)


def load_int8(directory: Path, slots: int) -> OpenVinoRuntime:
    """A graph with fixed int8 ranges, the rest of it in bf16 where the CPU has that. Raises RuntimeUnavailable."""
    return _loaded("openvino-int8", directory, slots, "bf16" if _has_bf16(_core()) else "fp32")


def _loaded(name: str, directory: Path, slots: int, precision: Precision) -> OpenVinoRuntime:
    core = _core()
    # It keeps compiled kernels of the shapes it saw, 5,000 by default: 1 GiB after 1,200 shapes of batches. Without any
    # a text alone takes twice as long; this few bring that back, and memory stays where it is.
    options = _options(core, slots, precision) | {"CPU_RUNTIME_CACHE_CAPACITY": 256}
    compiled = core.compile_model(str(directory / MODEL), "CPU", options)
    runtime = OpenVinoRuntime(name, slots, compiled)
    _run_once(runtime)
    return runtime


def load_packed(directory: Path, slots: int, precision: Precision) -> PackedOpenVinoRuntime:
    """A release's packed graph in this precision. Raises RuntimeUnavailable as `load`, or for want of such a graph."""
    core = _core()
    options = _options(core, slots, precision)
    if not (directory / PACKED).is_file():
        raise RuntimeUnavailable(NO_PACKED)
    longest = read_manifest(directory).max_tokens
    if longest > LONGEST_PACKED:
        raise RuntimeUnavailable(f"it reads {longest} tokens of a text, and rows end at {LONGEST_PACKED}")
    graph = core.read_model(str(directory / PACKED))
    compiled = {}
    for size in row_sizes(longest):
        of_size = graph.clone()
        tokens = {name: [1, size] for name in ("input_ids", "position_ids", "segment_ids")}
        of_size.reshape(tokens | {"segments": [size // TOKENS_A_TEXT]})
        compiled[size] = core.compile_model(of_size, "CPU", options)
    runtime = PackedOpenVinoRuntime(f"openvino-{precision}-packed", slots, compiled)
    _run_once(runtime)
    return runtime


def _has_bf16(core: "openvino.Core") -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _options(core: "openvino.Core", slots: int, precision: Precision) -> dict[str, object]:
    if precision == "bf16" and not _has_bf16(core):
        raise RuntimeUnavailable("this CPU does not compute in bf16")
    return {
        "NUM_STREAMS": slots,
        "INFERENCE_NUM_THREADS": slots,
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        # Several workers on one machine would be pinned to the same cores, and so would the rest of this process.
        "ENABLE_CPU_PINNING": False,
    }


def _run_once(runtime: OpenVinoRuntime | PackedOpenVinoRuntime) -> None:
    """The first tensor ever made must be made by one thread.

    Two at once wait for each other for ever, one holding the interpreter's lock and the other the lock of the bindings'
    first use of NumPy.
    """
    one_token = np.ones((1, 1), np.int64)
    runtime.run(one_token, one_token)


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
