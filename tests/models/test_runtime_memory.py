"""A runtime that is really short of memory says so in a way that is understood, and works on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.runtimes import out_of_memory
from tests.streams.handmade import make_release

ROOT = Path(__file__).parents[2]
LABELS = 20_000  # so that a batch of short texts needs much memory
SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from models.runtimes import open_runtime, out_of_memory

def ids(texts):
    found = np.full((texts, 16), 5, np.int64)
    return found, np.ones_like(found)

runtime = open_runtime(Path(sys.argv[1]), "cpu", "onnxruntime-fp32", 1)
runtime.run(*ids(1))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (128 << 20),) * 2)
try:
    runtime.run(*ids(512))
except Exception as error:
    print(out_of_memory(error), runtime.run(*ids(1)).shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_onnxruntime_without_memory_is_recognised_and_goes_on(tmp_path: Path) -> None:
    release = make_release(tmp_path / "many", {"many": tuple(map(str, range(LABELS)))})
    found = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, str(release)], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert found.stdout.strip() == f"True (1, {LABELS})", found.stderr


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc((void**)&p, size);"), True),
        (RuntimeError("bfc_arena.cc:368 Available memory of 0 is smaller than requested bytes of 701267968"), True),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("Exception from src/inference: std::bad_alloc"), True),
        (RuntimeError("CUDA failure 700: an illegal memory access was encountered"), False),
        (ValueError("Got invalid dimensions for input: input_ids"), False),
    ],
)
def test_how_libraries_say_that_memory_is_short(error: Exception, expected: bool) -> None:
    assert out_of_memory(error) is expected
