"""Where a model runs: token ids in, logits out, on one device.

`Runtime` is what the classifier needs and no more; a second implementation only has to satisfy it.
"""

import ctypes
import logging
import os
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from models.errors import DeviceUnavailable

Device = Literal["auto", "cpu", "cuda"]
Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

SILENT = 4  # onnxruntime's severities: 0 verbose ... 4 fatal; what it has to say reaches us as an exception anyway

log = logging.getLogger(__name__)


class Runtime(Protocol):
    """A model on a device."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu" or "cuda"."""

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        """Logits [n, labels] of token ids [n, t]; the mask [n, t] is 1 on tokens and 0 on padding."""


class OnnxRuntime:
    """A model file on ONNX Runtime: CUDA where there is a usable device, else the CPU."""

    def __init__(self, path: Path, device: Device = "auto", threads: int | None = None) -> None:
        """Load the graph; `threads` bounds the cores one run takes (CPU only; None: all of them).

        Raises DeviceUnavailable when "cuda" is asked for and cannot be had.
        """
        ort.set_default_logger_severity(SILENT)
        self._session = _session(path, device, threads)
        self.device = "cuda" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"
        log.info("%s runs on %s", path.parent.name, self.device)

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        """Logits [n, labels] of token ids [n, t]."""
        logits: Floats = self._session.run(None, {"input_ids": input_ids, "attention_mask": attention_mask})[0]
        return logits


def _session(path: Path, device: Device, threads: int | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = SILENT
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    problem = None if device == "cpu" else _cuda_problem()
    if device != "cpu" and problem is None:
        session = ort.InferenceSession(str(path), options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
        if "CUDAExecutionProvider" in session.get_providers():
            return session
        problem = "onnxruntime could not load its CUDA libraries (CUDA 12 and cuDNN 9 are needed)"
        log.warning("there is a CUDA device, but %s", problem)
    if device == "cuda":
        raise DeviceUnavailable(f"device: 'cuda' was asked for, but {problem}; use 'auto' or 'cpu'")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _cuda_problem() -> str | None:
    """Why CUDA is no choice, or None. The driver is asked first: onnxruntime would print its own failure."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "this onnxruntime is built without CUDA (install onnxruntime-gpu)"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "the NVIDIA driver finds no device"
    ort.preload_dlls()  # the CUDA libraries that pip installed beside it, if any
    return None
