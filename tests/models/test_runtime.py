from pathlib import Path

import numpy as np
import pytest

from models import runtime
from models.errors import DeviceUnavailable
from models.runtime import OnnxRuntime, Runtime

NO_CUDA = runtime._cuda_problem()


def test_the_cpu_takes_any_batch_and_length(tiny_release: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded: Runtime = OnnxRuntime(tiny_release / "model.onnx", "cpu", threads=1)
    assert loaded.device == "cpu"
    for shape in ((1, 2), (3, 7), (8, 24)):
        logits = loaded.run(np.ones(shape, np.int64), np.ones(shape, np.int64))
        assert logits.shape == (shape[0], 2)
        assert logits.dtype == np.float32
    assert capfd.readouterr() == ("", "")


def test_auto_takes_what_there_is(
    tiny_release: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="models.runtime"):
        loaded = OnnxRuntime(tiny_release / "model.onnx")
    assert loaded.device == ("cpu" if NO_CUDA else "cuda")
    assert f"runs on {loaded.device}" in caplog.text
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(NO_CUDA is None, reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_an_error(tiny_release: Path) -> None:
    with pytest.raises(DeviceUnavailable, match=r"'cuda' was asked for, but .*; use 'auto' or 'cpu'"):
        OnnxRuntime(tiny_release / "model.onnx", "cuda")
