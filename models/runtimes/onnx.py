"""ONNX Runtime: float32 or int8 on the CPU, float32 (TF32) on CUDA, float16 through TensorRT.

CUDA graphs are left out: one is recorded for one shape of batch, and batches of real texts come in hundreds of shapes.
"""

import ctypes
import importlib.util
from pathlib import Path
from queue import LifoQueue
from typing import Any

import numpy as np
import onnxruntime as ort

from models import releases
from models.errors import RuntimeUnavailable
from models.packing import row_sizes
from models.releases import MODEL, PACKED
from models.runtimes.protocol import Floats, Ids, Rectangles
from models.runtimes.rows import NO_PACKED, Rows

SILENT = 4  # onnxruntime's severities: 0 verbose ... 4 fatal; what it has to say reaches us as an exception anyway
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"
SMALLEST_BUFFER = 4096  # tokens; buffers grow by doubling, so that they are soon large enough for good
TENSORRT_LIBRARY = "libnvinfer.so.10"
TENSORRT_TEXTS = (1, 64, 1024)  # a batch's rows: the fewest, what the engine is tuned for, the most
TENSORRT_TUNED_TOKENS = 32


class OnnxRuntime(Rectangles):
    """A session on the CPU, where inputs and outputs already are where they are needed."""

    device = "cpu"

    def __init__(self, name: str, slots: int, session: ort.InferenceSession) -> None:
        self.name = name
        self.slots = slots
        self._session = session

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        """Logits [n, columns] of token ids [n, t]."""
        logits: Floats = self._session.run([OUTPUT], dict(zip(INPUTS, (input_ids, attention_mask), strict=True)))[0]
        return logits


class PackedOnnxRuntime(Rows):
    """A session of the packed graph on the CPU."""

    device = "cpu"

    def __init__(self, name: str, slots: int, session: ort.InferenceSession, max_tokens: int) -> None:
        super().__init__(row_sizes(max_tokens))
        self.name = name
        self.slots = slots
        self._session = session

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        """Logits [n, columns] of token ids [n, t]."""
        return self.run_rows(self._run_row, input_ids, attention_mask)

    def _run_row(self, inputs: dict[str, Ids]) -> Floats:
        logits: Floats = self._session.run([OUTPUT], inputs)[0]
        return logits


class BoundRuntime(Rectangles):
    """A session on a device with memory of its own, which keeps its input buffers there from run to run.

    An engine that was built for `max_texts` rows gets a larger batch in parts.
    """

    def __init__(
        self, name: str, device: str, slots: int, session: ort.InferenceSession, max_texts: int | None = None
    ) -> None:
        self.name = name
        self.device = device
        self.slots = slots
        self._max_texts = max_texts
        self._free: LifoQueue[_Binding] = LifoQueue()
        for _ in range(slots):
            self._free.put(_Binding(session, device))

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        """Logits [n, columns] of token ids [n, t]."""
        step = self._max_texts or len(input_ids)
        binding = self._free.get()
        try:
            parts = [
                binding.run(input_ids[start : start + step], attention_mask[start : start + step])
                for start in range(0, len(input_ids), step)
            ]
        finally:
            self._free.put(binding)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _Binding:
    """One run's buffers: flat, on the host and on the device, and large enough for any batch so far."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session = session
        self._device = device
        self._binding = session.io_binding()
        self._allocate(SMALLEST_BUFFER)

    def _allocate(self, capacity: int) -> None:
        self._capacity = capacity
        self._host = np.zeros(capacity, np.int64)
        self._buffers = [
            ort.OrtValue.ortvalue_from_shape_and_type((capacity,), np.int64, self._device, 0) for _ in INPUTS
        ]

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        size = input_ids.size
        if size > self._capacity:
            self._allocate(1 << (size - 1).bit_length())
        for name, values, buffer in zip(INPUTS, (input_ids, attention_mask), self._buffers, strict=True):
            self._host[:size] = values.reshape(-1)
            buffer.update_inplace(self._host)  # the whole of it: tens of KiB, in one synchronous copy
            self._binding.bind_input(name, self._device, 0, np.int64, list(values.shape), buffer.data_ptr())
        self._binding.bind_output(OUTPUT, "cpu")
        self._session.run_with_iobinding(self._binding)
        logits: Floats = self._binding.copy_outputs_to_cpu()[0]
        return logits


def load_cpu(directory: Path, slots: int) -> OnnxRuntime:
    """Float32 on the CPU, one core a run."""
    return _on_cpu("onnxruntime-fp32", directory, slots)


def load_int8_cpu(directory: Path, slots: int) -> OnnxRuntime:
    """As the graph is quantised, on the CPU, one core a run."""
    return _on_cpu("onnxruntime-int8", directory, slots)


def _on_cpu(name: str, directory: Path, slots: int) -> OnnxRuntime:
    session = ort.InferenceSession(str(directory / MODEL), session_options(), providers=["CPUExecutionProvider"])
    return OnnxRuntime(name, slots, session)


def load_packed_cpu(directory: Path, slots: int) -> PackedOnnxRuntime:
    """Float32 on the CPU, texts side by side. Raises RuntimeUnavailable for a release that has no packed graph."""
    if not (directory / PACKED).is_file():
        raise RuntimeUnavailable(NO_PACKED)
    session = ort.InferenceSession(str(directory / PACKED), session_options(), providers=["CPUExecutionProvider"])
    max_tokens = releases.read_manifest(directory).max_tokens
    return PackedOnnxRuntime("onnxruntime-fp32-packed", slots, session, max_tokens)


def load_cuda(directory: Path, slots: int) -> BoundRuntime:
    """Float32 on CUDA; matrix products in TF32. Raises RuntimeUnavailable where onnxruntime cannot use the device."""
    return BoundRuntime("onnxruntime-cuda-fp32", "cuda", slots, _session(directory, "CUDAExecutionProvider", {}))


def load_tensorrt(directory: Path, slots: int) -> BoundRuntime:
    """Float16 through TensorRT; the engine is built once (minutes) and kept. Raises RuntimeUnavailable without it."""
    _need_tensorrt()
    cache = releases.home() / "runtimes" / "tensorrt" / releases.file_sha256(directory / MODEL)[:16]
    cache.mkdir(parents=True, exist_ok=True)
    longest = releases.read_manifest(directory).max_tokens
    tokens = (2, min(TENSORRT_TUNED_TOKENS, longest), longest)
    shapes = [
        ",".join(f"{name}:{texts}x{width}" for name in INPUTS)
        for texts, width in zip(TENSORRT_TEXTS, tokens, strict=True)
    ]
    options = {
        "trt_fp16_enable": "True",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache),
        "trt_profile_min_shapes": shapes[0],
        "trt_profile_opt_shapes": shapes[1],
        "trt_profile_max_shapes": shapes[2],
    }
    session = _session(directory, "TensorrtExecutionProvider", options)
    return BoundRuntime("tensorrt-fp16", "cuda", slots, session, max_texts=TENSORRT_TEXTS[-1])


def session_options() -> ort.SessionOptions:
    """One thread a run, and silence."""
    ort.set_default_logger_severity(SILENT)
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def _session(directory: Path, provider: str, provider_options: dict[str, Any]) -> ort.InferenceSession:
    if provider not in ort.get_available_providers():
        raise RuntimeUnavailable(f"this onnxruntime is built without {provider} (install onnxruntime-gpu)")
    ort.preload_dlls()  # the CUDA libraries that pip installed beside it, if any
    # What TensorRT does not take falls to CUDA, and what neither takes to the CPU.
    chain = [(provider, provider_options), *(["CUDAExecutionProvider"] if provider.startswith("Tensor") else [])]
    session = ort.InferenceSession(
        str(directory / MODEL), session_options(), providers=[*chain, "CPUExecutionProvider"]
    )
    if provider not in session.get_providers():  # onnxruntime itself falls back without a word
        raise RuntimeUnavailable("onnxruntime could not load the CUDA and cuDNN libraries it was built with")
    return session


def _need_tensorrt() -> None:
    """Load TensorRT where the provider will look for it: the system's, or the one pip installed."""
    places = [TENSORRT_LIBRARY]
    if found := importlib.util.find_spec("tensorrt_libs"):
        places += [str(Path(folder) / TENSORRT_LIBRARY) for folder in found.submodule_search_locations or ()]
    for place in places:
        try:
            ctypes.CDLL(place, ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return
    raise RuntimeUnavailable(f"TensorRT is not installed ({TENSORRT_LIBRARY}; install tensorrt-cu12 or tensorrt-cu13)")
