"""Each runtime gives the graph's own logits, for any batch, from several threads, and says nothing."""

import importlib
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from models.errors import RuntimeUnavailable
from models.golden import Golden, read_golden
from models.padding import padded
from models.releases import MODEL
from models.runtimes import onnx, openvino, parity
from models.runtimes.candidates import CANDIDATES, Candidate
from models.runtimes.onnx import BoundRuntime
from models.runtimes.protocol import Floats, Ids, Runtime
from models.runtimes.rows import NO_PACKED
from models.runtimes.torch import read_weights
from models.softmax import softmax

ON_CPU = [candidate for candidate in CANDIDATES if candidate.device == "cpu" and "fp32" in candidate.precisions]
SHAPES = ((1, 2), (3, 7), (8, 24), (1, 24), (300, 20), (2, 2))


@cache
def loaded(candidate: Candidate, directory: Path, slots: int) -> Runtime:
    return candidate.load(directory, slots)


def opened(candidate: Candidate, directory: Path, slots: int = 2) -> Runtime:
    try:
        return loaded(candidate, directory, slots)
    except RuntimeUnavailable as error:
        if "bf16" in str(error):
            pytest.skip(str(error))
        raise


def batch(shape: tuple[int, int], seed: int = 0) -> tuple[Ids, Ids]:
    """Token ids with rows of every length: the last may be a single token long."""
    rng = np.random.default_rng((seed, *shape))
    texts, width = shape
    lengths = [width, *rng.integers(1, width + 1, texts - 1)]
    return padded([rng.integers(2, 30, length).tolist() for length in lengths], fill=0)


def golden(directory: Path) -> Golden:
    found = read_golden(directory)
    assert found is not None
    return found


@pytest.mark.parametrize("candidate", ON_CPU, ids=lambda candidate: candidate.name)
def test_every_runtime_gives_the_logits_of_the_graph(joint_release: Path, candidate: Candidate) -> None:
    runtime, reference = opened(candidate, joint_release), opened(ON_CPU[0], joint_release)
    assert (runtime.name, runtime.device, runtime.slots) == (candidate.name, "cpu", 2)
    heads = (slice(0, 2), slice(2, 5))
    for shape in SHAPES:
        ids, mask = batch(shape)
        logits = runtime.run(ids, mask)
        assert logits.shape == (shape[0], 5)
        assert logits.dtype == np.float32
        expected = reference.run(ids, mask)
        for columns in heads:
            far = np.abs(softmax(logits[:, columns]) - softmax(expected[:, columns])).max()
            assert far <= candidate.tolerance
    windows, source = golden(joint_release)
    assert parity.problem(runtime.run(*padded(windows, fill=0)), source, candidate.tolerance, heads) is None


@pytest.mark.parametrize("candidate", ON_CPU, ids=lambda candidate: candidate.name)
def test_several_threads_get_what_one_gets(joint_release: Path, candidate: Candidate) -> None:
    runtime = opened(candidate, joint_release)
    batches = [batch(SHAPES[turn % len(SHAPES)], turn) for turn in range(60)]
    alone = [runtime.run(*each) for each in batches]

    def run(each: tuple[Ids, Ids]) -> Floats:
        return runtime.run(*each)

    for threads in (2, 5):  # as many as it has slots, and more
        with ThreadPoolExecutor(threads) as pool:
            together = list(pool.map(run, batches))
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("candidate", ON_CPU, ids=lambda candidate: candidate.name)
def test_an_answer_is_not_overwritten_by_the_next(joint_release: Path, candidate: Candidate) -> None:
    runtime = opened(candidate, joint_release, slots=1)
    first = runtime.run(*batch((4, 9), 1))
    kept = first.copy()
    runtime.run(*batch((4, 9), 2))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("candidate", ON_CPU, ids=lambda candidate: candidate.name)
def test_nothing_is_printed(joint_release: Path, candidate: Candidate, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        candidate.load(joint_release, 1).run(*batch((2, 5)))
    except RuntimeUnavailable as error:
        pytest.skip(str(error))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("max_texts", [None, 7])
def test_bound_buffers_give_what_the_plain_path_gives(joint_release: Path, max_texts: int | None) -> None:
    options = onnx.session_options()
    session = ort.InferenceSession(str(joint_release / MODEL), options, providers=["CPUExecutionProvider"])
    bound, plain = BoundRuntime("bound", "cpu", 2, session, max_texts), opened(ON_CPU[0], joint_release)
    batches = [batch(shape, turn) for turn, shape in enumerate((*SHAPES, (400, 24), (3, 5)))]  # past the first buffer
    assert max(ids.size for ids, _ in batches) > onnx.SMALLEST_BUFFER

    def run(each: tuple[Ids, Ids]) -> Floats:
        return bound.run(*each)

    with ThreadPoolExecutor(3) as pool:
        for each, logits in zip(batches, pool.map(run, batches), strict=True):
            np.testing.assert_allclose(logits, plain.run(*each), atol=1e-5)


def test_the_weights_of_a_graph_have_the_names_of_the_model(joint_release: Path) -> None:
    weights = read_weights(joint_release / MODEL)
    assert weights["head.weight"].shape == (5, 32)
    layer = "encoder.encoder.layer.0"
    assert weights[f"{layer}.intermediate.dense.weight"].shape == (64, 32)
    assert weights[f"{layer}.output.dense.weight"].shape == (32, 64)
    assert weights[f"{layer}.attention.self.query.weight"].shape == (32, 32)


def test_torch_needs_the_encoders_configuration(joint_release: Path, tmp_path: Path) -> None:
    (tmp_path / MODEL).symlink_to(joint_release / MODEL)
    torch = next(candidate for candidate in ON_CPU if candidate.name == "torch-bf16")
    with pytest.raises(RuntimeUnavailable, match=r"config\.json"):
        torch.load(tmp_path, 1)


def without(packages: Sequence[str], code: str) -> str:
    """What code prints in a process where these packages cannot be imported."""
    refuse = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {tuple(packages)!r}:
            raise ImportError('refused: ' + name)
sys.meta_path.insert(0, Refuse())
from pathlib import Path
"""
    done = subprocess.run(
        [sys.executable, "-c", refuse + code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_library_that_is_not_there_leaves_the_others(joint_release: Path) -> None:
    code = f"""
from models.errors import RuntimeUnavailable
from models.runtimes import open_runtime
from models.runtimes.choosing import available
folder = Path({str(joint_release)!r})
print(available(folder, 'cpu'))
for name in ('openvino-bf16', 'torch-bf16'):
    try:
        open_runtime(folder, 'cpu', name)
    except RuntimeUnavailable as error:
        print(error)
"""
    names, *errors = without(["openvino", "torch", "transformers"], code).splitlines()
    assert names == "['onnxruntime-fp32', 'onnxruntime-fp32-packed']"
    assert "'openvino-bf16': not installed (pip install openvino)" in errors[0]
    assert 'not installed (pip install "streamgauge[train]")' in errors[1]
    assert all("what loads here: onnxruntime-fp32, onnxruntime-fp32-packed; or use 'auto'" in error for error in errors)


def test_a_release_without_a_packed_graph_says_so(joint_release: Path, tmp_path: Path) -> None:
    (tmp_path / MODEL).symlink_to(joint_release / MODEL)
    packed = [candidate for candidate in ON_CPU if candidate.name.endswith("-packed")]
    assert len(packed) == 3
    for candidate in packed:
        try:
            candidate.load(tmp_path, 1)
        except RuntimeUnavailable as error:
            assert str(error) == NO_PACKED or "bf16" in str(error)
        else:
            raise AssertionError(candidate.name)


def test_openvino_reports_to_nobody() -> None:
    code = """
from models.runtimes import openvino
openvino._core()
print([name for name in sys.modules if 'telemetry' in name and sys.modules[name] is not None and 'stub' not in name])
"""
    assert "openvino_telemetry" not in without([], code)


def test_what_hides_telemetry_leaves_no_trace() -> None:
    before = dict(sys.modules)
    with openvino._without_telemetry(), pytest.raises(ImportError):
        importlib.import_module(openvino.TELEMETRY)
    assert sys.modules == before
