"""What serves a release: gate, measurement, choice, and what is remembered of it."""

import json
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import releases
from models.errors import DeviceUnavailable, IntegrityError, RuntimeUnavailable
from models.golden import GOLDEN, Golden, read_golden, write_golden
from models.releases import MODEL, PACKED
from models.runtimes import REFERENCE, RUNTIMES, Floats, available, choosing, open_runtime, parity
from models.runtimes.candidates import CANDIDATES, Candidate
from models.runtimes.cuda import cuda_problem
from models.runtimes.measuring import choose, golden_batches, golden_logits, measure
from models.runtimes.protocol import Ids, Rectangles
from models.runtimes.remembered import Decision, Finding, decision_key, recall, remember

LOGITS = np.array([[4.0, 0.0, 1.0], [0.0, 3.0, 1.0], [0.1, 0.0, 5.0]], np.float32)
HEADS = (slice(0, 2), slice(2, 5))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(choosing, "MEASURE_S", 0.001)
    return tmp_path / "home"


@pytest.fixture
def release(joint_release: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of a release, to be damaged."""
    yield shutil.copytree(joint_release, tmp_path / "release")


def golden_of(directory: Path) -> Golden:
    found = read_golden(directory)
    assert found is not None
    return found


def change_model(directory: Path) -> None:
    """Give the graph another head: it loads and runs, and its scores are not the release's. No other graph is left."""
    (directory / PACKED).unlink()
    model = onnx.load(directory / MODEL)
    head = next(tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
    head.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(head), head.name))
    onnx.save(model, directory / MODEL)


# The gate.


def test_the_gate_lets_the_same_scores_pass() -> None:
    assert parity.problem(LOGITS, LOGITS, parity.EXACT) is None
    assert parity.problem(LOGITS + 100, LOGITS, parity.EXACT) is None  # the same probabilities


@pytest.mark.parametrize(
    ("logits", "problem"),
    [
        (np.where(LOGITS == 5, np.nan, LOGITS), "not numbers"),
        (np.where(LOGITS == 5, np.inf, LOGITS), "not numbers"),
        (LOGITS[:, ::-1].copy(), "another label for 66.7% of the golden texts, allowed 0.5%"),
        (LOGITS * np.float32(1.5), "probabilities up to .* from the golden ones"),
        (LOGITS[:2], "shape"),
    ],
)
def test_the_gate_refuses(logits: Floats, problem: str) -> None:
    found = parity.problem(logits.astype(np.float32), LOGITS, parity.ROUNDED)
    assert found is not None
    assert problem.split(" .* ")[0] in found


def test_the_gate_looks_at_every_head() -> None:
    expected = np.array([[20.0, 0.0, 2.0, 1.0, 0.0]], np.float32)
    other = np.array([[20.0, 0.0, 1.0, 2.0, 0.0]], np.float32)
    assert parity.problem(other, expected, parity.EXACT) is None  # the first head outshines the second
    assert "another label" in str(parity.problem(other, expected, parity.EXACT, HEADS))


@given(st.integers(0, 256))
def test_one_label_in_two_hundred_may_differ(different: int) -> None:
    expected = np.tile(np.array([[0.001, 0.0]], np.float32), (256, 1))
    logits = expected.copy()
    logits[:different] = logits[:different, ::-1]
    assert (parity.problem(logits, expected, parity.ROUNDED) is None) == (different <= 1)


# The choice.


@given(st.dictionaries(st.sampled_from(RUNTIMES), st.floats(0.1, 1e6), min_size=1))
def test_the_fastest_is_chosen(measured: dict[str, float]) -> None:
    assert measured[choose(measured)] == max(measured.values())


def test_a_rate_counts_every_text_of_every_pass(joint_release: Path) -> None:
    runtime, golden = open_runtime(joint_release, "cpu", "onnxruntime-fp32", threads=2), golden_of(joint_release)
    batches = golden_batches(golden, "cpu")
    rate = measure(runtime, batches, seconds=0.01)
    mean_tokens = sum(map(len, golden.windows)) / len(golden.windows)
    assert rate.texts_per_s > 0
    assert rate.tokens_per_s / rate.texts_per_s == pytest.approx(mean_tokens)
    np.testing.assert_allclose(golden_logits(runtime, batches), golden.logits, atol=1e-4)


def test_auto_takes_the_fastest_that_passes(
    joint_release: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="models.runtimes"):
        runtime = open_runtime(joint_release, "cpu", threads=2, head_slices=HEADS)
    assert (runtime.device, runtime.slots) == ("cpu", 2)
    (record,) = caplog.records
    told = record.getMessage()
    assert told.startswith(f"joint-release: {runtime.name}, of {runtime.name} ")  # the fastest is named first
    by_name = {candidate.name for candidate in CANDIDATES if candidate.by_name}
    for name in available(joint_release, "cpu"):
        assert (f"{name} " in told) is (name not in by_name)
    assert runtime.name not in by_name
    assert "onnxruntime-fp32" in told
    assert "texts/s" in told
    golden = golden_of(joint_release)
    logits = golden_logits(runtime, golden_batches(golden, "cpu"))
    assert parity.problem(logits, golden.logits, parity.ROUNDED, HEADS) is None
    assert capfd.readouterr() == ("", "")


@dataclass
class Paced(Rectangles):
    """The golden logits, so many milliseconds a batch."""

    name: str
    golden: Golden
    batch_ms: float
    device: str = "cuda"  # measured by the time that passes
    slots: int = 1

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        time.sleep(self.batch_ms / 1000)
        rows = {tuple(window): row for window, row in zip(self.golden.windows, self.golden.logits, strict=True)}
        lengths = attention_mask.sum(axis=1)
        return np.stack([rows[tuple(ids[:length])] for ids, length in zip(input_ids.tolist(), lengths, strict=True)])


@pytest.mark.parametrize(("other_ms", "tried"), [(0.1, False), (30.0, True)])
def test_a_spare_is_tried_only_where_nothing_else_beats_the_reference(
    joint_release: Path, other_ms: float, tried: bool
) -> None:
    golden, loads = golden_of(joint_release), list[str]()

    def candidate(name: str, batch_ms: float, spare: bool = False) -> Candidate:
        def load(directory: Path, slots: int) -> Paced:
            loads.append(name)
            return Paced(name, golden, batch_ms)

        return Candidate(name, "cuda", parity.EXACT, load, spare)

    candidates = [candidate(REFERENCE["cuda"], 10.0), candidate("other", other_ms), candidate("spare", 0.1, spare=True)]
    decision, runtime = choosing._decided(joint_release, candidates, 1, golden, HEADS)
    assert ("spare" in loads) is tried
    assert runtime.name == decision.chosen == ("spare" if tried else "other")
    if not tried:
        assert decision.findings[-1].refused == "not tried, as other is faster than the reference"


def test_without_a_golden_set_onnxruntime_serves(release: Path, caplog: pytest.LogCaptureFixture) -> None:
    (release / GOLDEN).unlink()
    with caplog.at_level(logging.INFO, logger="models.runtimes"):
        assert open_runtime(release, "cpu", threads=1).name == "onnxruntime-fp32"
    assert "without golden.json nothing else can be compared" in caplog.text


def test_a_changed_model_is_not_served(release: Path) -> None:
    change_model(release)
    with pytest.raises(IntegrityError, match=r"nothing can serve it .* onnxruntime-fp32: gives .* golden"):
        open_runtime(release, "cpu", threads=1)
    with pytest.raises(RuntimeUnavailable, match=r"'onnxruntime-fp32': gives .* golden"):
        open_runtime(release, "cpu", "onnxruntime-fp32", threads=1)


def test_a_damaged_model_is_not_served(release: Path) -> None:
    (release / MODEL).write_bytes(b"no graph")
    with pytest.raises(IntegrityError, match=r"model\.onnx: .* cannot load it"):
        open_runtime(release, "cpu", threads=1)
    (release / GOLDEN).unlink()
    with pytest.raises(IntegrityError, match=r"model\.onnx: .*cannot load it"):
        open_runtime(release, "cpu", threads=1)


def test_token_ids_the_model_does_not_know_are_refused(release: Path) -> None:
    golden = golden_of(release)
    write_golden(release, [[10**6, 3], *golden.windows[1:]], golden.logits)
    with pytest.raises(RuntimeUnavailable, match="cannot run it"):
        open_runtime(release, "cpu", "onnxruntime-fp32", threads=1)


def test_a_name_that_is_none_is_told_what_there_is(joint_release: Path) -> None:
    with pytest.raises(
        RuntimeUnavailable, match="'fast' is none; allowed: auto, onnxruntime-fp32, onnxruntime-fp32-packed"
    ):
        open_runtime(joint_release, "cpu", "fast")
    with pytest.raises(RuntimeUnavailable, match="'tensorrt-fp16' does not run on device 'cpu'; on it there are onnx"):
        open_runtime(joint_release, "cpu", "tensorrt-fp16")


@pytest.mark.skipif(cuda_problem() is None, reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_an_error(joint_release: Path) -> None:
    with pytest.raises(DeviceUnavailable, match=r"'cuda' was asked for, but .*; use 'auto' or 'cpu'"):
        open_runtime(joint_release, "cuda")
    with pytest.raises(DeviceUnavailable, match=r"'tensorrt-fp16' was asked for, but .*; use 'auto'"):
        open_runtime(joint_release, "auto", "tensorrt-fp16")


# What is remembered.


def told(directory: Path, caplog: pytest.LogCaptureFixture, threads: int = 1) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="models.runtimes"):
        open_runtime(directory, "cpu", threads=threads)
    return caplog.text


def decisions(home: Path) -> list[Path]:
    return sorted((home / "runtimes").glob("*.json"))


def test_the_second_start_measures_nothing(release: Path, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "(measured before)" not in told(release, caplog)
    (decision,) = decisions(home)
    # What it says is believed: the slowest thing to do is chosen, and the next start does it.
    slow = json.loads(decision.read_text()) | {"chosen": "onnxruntime-fp32"}
    decision.write_text(json.dumps(slow))
    assert "release: onnxruntime-fp32, of " in told(release, caplog)
    assert "(measured before)" in caplog.text
    assert list((home / "runtimes").iterdir()) == [decision]  # nothing half-written beside it
    told(release, caplog, threads=2)
    assert len(decisions(home)) == 2  # other slots are another measurement


def test_a_change_of_the_release_is_another_decision(release: Path, caplog: pytest.LogCaptureFixture) -> None:
    told(release, caplog)
    change_model(release)
    with pytest.raises(IntegrityError):  # gated anew, not remembered
        open_runtime(release, "cpu", threads=1)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff", b'{"chosen": "onnxruntime-fp32"}', b'{"chosen": "x", "findings": []}', b" " * (1 << 21)],
    ids=["empty", "half", "no text", "a field less", "no finding", "endless"],
)
def test_a_damaged_decision_is_no_decision(home: Path, caplog: pytest.LogCaptureFixture, damage: bytes) -> None:
    (home / "runtimes").mkdir(parents=True)
    (home / "runtimes" / "key.json").write_bytes(damage)
    assert recall("key") is None
    assert "key.json: ignored, and measured anew" in caplog.text


@pytest.mark.parametrize("chosen", ["rm -rf", "tensorrt-fp16"])
def test_a_decision_for_what_cannot_be_is_made_anew(
    release: Path, home: Path, caplog: pytest.LogCaptureFixture, chosen: str
) -> None:
    told(release, caplog)
    (decision,) = decisions(home)
    decision.write_text(json.dumps({"chosen": chosen, "findings": [{"name": chosen}]}))
    assert "(measured before)" not in told(release, caplog)
    assert "(measured before)" in told(release, caplog)  # and it is mended


def test_a_home_that_cannot_be_written_does_not_keep_a_worker_from_starting(
    joint_release: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.write_text("a file where the folder should be")
    assert "cannot be kept" in told(joint_release, caplog)


def test_decisions_come_back_as_they_were(joint_release: Path) -> None:
    decision = Decision(
        chosen="openvino-bf16",
        findings=(
            Finding(name="openvino-bf16", texts_per_s=1280.5, tokens_per_s=2e4),
            Finding(name="torch-bf16", refused="not installed"),
        ),
    )
    remember("key", decision)
    assert recall("key") == decision
    assert recall("other") is None


def test_a_decision_depends_on_all_it_was_made_from(joint_release: Path, release: Path) -> None:
    def key(directory: Path = release, slots: int = 2, heads: tuple[slice, ...] = (), exact: float = 0.1) -> str:
        return decision_key(directory, "cpu", slots, heads, [("onnxruntime-fp32", exact, 0.005)])

    keys = {key(), key(slots=1), key(heads=HEADS), key(exact=0.2)}
    assert len(keys) == 4
    assert key(joint_release) == key()  # by content, not by place
    golden = golden_of(release)
    write_golden(release, golden.windows, golden.logits + np.float32(0.001))
    assert key() not in keys
    assert releases.home().name == "home"
