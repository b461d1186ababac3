"""Each precision of a release: measured, judged by the gate, and kept as a release of its own."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from models import releases
from models.classifier import Model
from models.compression import PRECISIONS, TOLERANCES, Graded, Variant, best, compress, keep, refusal
from models.errors import BadDataset, BadRelease, ExportMismatch, RuntimeUnavailable
from models.golden import GOLDEN, read_golden, write_golden
from models.releases import Precision
from models.runtimes import available, choosing, open_runtime, reference
from models.runtimes.parity import OF_PRECISION, Distance
from models.tasks import Task
from streams.compress_command import compress as command
from tests.models.tiny import ignore, make_examples, make_money

app = typer.Typer()
app.command()(command)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(choosing, "MEASURE_S", 0.001)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def tasks(tiny_task: Task, money_task: Task) -> list[Graded]:
    return [Graded(tiny_task, make_examples(40, start=900)), Graded(money_task, make_money(40, start=900))]


@pytest.fixture(scope="module")
def built(
    joint_release: Path, tasks: list[Graded], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[Precision, Variant]]]:
    """All precisions of a release of two tasks, and the folder they are in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMGAUGE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(choosing, "MEASURE_S", 0.001)
        folder = tmp_path_factory.mktemp("built")
        texts = [example.text for one in tasks for example in one.examples]
        found = compress(joint_release, tasks, texts, folder, ignore, device="cpu")
        yield folder, {one.precision: one for one in found}


def test_every_precision_is_measured(built: tuple[Path, dict[Precision, Variant]]) -> None:
    _, found = built
    assert tuple(found) == PRECISIONS
    assert found["fp32"].size_mib > found["fp16"].size_mib > found["int8-static"].size_mib
    for precision, one in found.items():
        assert set(one.grades) == {"tone", "money"}
        assert one.refused is None, one
        assert one.furthest_score <= TOLERANCES[precision]
        assert one.p99_ms >= one.p50_ms > 0
        assert all(grade.n == 40 and grade.macro_f1 > 0.9 for grade in one.grades.values())
    assert found["fp32"].furthest_score < found["fp16"].furthest_score < found["int8-dynamic"].furthest_score
    assert "int8" in found["int8-static"].runtime
    assert found["int8-dynamic"].runtime == "onnxruntime-int8"


@pytest.mark.parametrize("precision", ["fp16", "int8-dynamic", "int8-static"])
def test_what_is_kept_is_a_release_that_says_its_precision(
    built: tuple[Path, dict[Precision, Variant]], joint_release: Path, precision: Precision, tmp_path: Path, home: Path
) -> None:
    folder, found = built
    copy = shutil.copytree(folder / precision, tmp_path / "built")
    directory = keep(found[precision], copy)
    manifest, parent = releases.verify(directory), releases.read_manifest(joint_release)
    assert directory == home / "releases" / "tone-money" / manifest.release
    assert manifest.precision == precision
    assert manifest.release != parent.release
    assert manifest.parent == releases.as_parent(joint_release)
    assert f"# {manifest.release}\n" in (directory / "card.md").read_text(encoding="utf-8")
    assert manifest.metrics["compression"]["from"] == parent.release
    assert manifest.head("tone").metrics["dev"]["n"] == 40
    served, source = Model.load(directory, "cpu"), Model.load(joint_release, "cpu", reference("fp32"))
    windows = [one.windows[0] for one in source.encode([example.text for example in make_examples(30, start=700)])]
    expected, rows = source.run(windows), served.run(windows)
    for task in manifest.tasks:
        np.testing.assert_allclose(rows[task], expected[task], atol=OF_PRECISION[precision] + 0.05)
    with pytest.raises(BadRelease, match=f"is in {precision} already"):
        compress(directory, [], [], tmp_path, ignore)


def test_runtimes_are_those_of_the_precision(built: tuple[Path, dict[Precision, Variant]]) -> None:
    folder, _ = built
    assert "onnxruntime-int8" not in available(folder / "fp16", "cpu")
    assert {"onnxruntime-fp32", "openvino-fp32"} <= set(available(folder / "fp16", "cpu"))
    assert set(available(folder / "int8-static", "cpu")) == {"onnxruntime-int8", "openvino-int8"}
    assert available(folder / "int8-dynamic", "cpu") == ["onnxruntime-int8"]
    assert reference("int8-static") == open_runtime(folder / "int8-static", "cpu", "onnxruntime-int8").name
    with pytest.raises(
        RuntimeUnavailable, match="does not run a release in int8-static; those that do: onnxruntime-int8"
    ):
        open_runtime(folder / "int8-static", "cpu", "onnxruntime-fp32")
    with pytest.raises(RuntimeUnavailable, match="does not run a release in fp16"):
        open_runtime(folder / "fp16", "cpu", "onnxruntime-int8")


@pytest.mark.parametrize(
    ("precision", "different", "furthest", "lost", "why"),
    [
        ("fp16", 0.005, 0.01, 1.0, None),  # the limit on macro-F1 is for int8
        ("fp16", 0.006, 0.0, 0.0, "another label for 0.6% of the risk golden set, allowed 0.5%"),
        ("fp16", 0.0, 0.011, 0.0, "risk scores up to 0.011 from the trained model's, allowed 0.01"),
        ("fp32", 0.0, float("nan"), 0.0, "risk scores up to nan"),
        ("int8-static", 0.005, 0.2, 0.005, None),
        ("int8-static", 0.005, 0.2, -0.1, None),
        ("int8-static", 0.0, 0.21, 0.0, "allowed 0.2"),
        ("int8-dynamic", 0.0, 0.0, 0.0051, "loses 0.51 points of risk macro-F1, allowed 0.5"),
    ],
)
def test_the_gate(precision: Precision, different: float, furthest: float, lost: float, why: str | None) -> None:
    found = refusal(
        precision, {"tone": Distance(0, 0), "risk": Distance(different, furthest)}, {"tone": 0, "risk": lost}
    )
    assert (found is None) == (why is None)
    assert why is None or why in str(found)


def test_what_the_gate_refuses_is_not_kept(built: tuple[Path, dict[Precision, Variant]], home: Path) -> None:
    folder, found = built
    refused = found["int8-static"].model_copy(update={"refused": "loses 2 points"})
    with pytest.raises(ExportMismatch, match="int8-static is refused: it loses 2 points"):
        keep(refused, folder / "int8-static")
    assert not home.exists()
    slow = found["fp16"].model_copy(update={"per_event_ms": 9.0})
    fast = found["int8-dynamic"].model_copy(update={"per_event_ms": 1.0})
    assert best([found["fp32"], slow, refused, fast]) is fast
    with pytest.raises(ExportMismatch, match=r"no precision below float32 is accepted: int8-static: it loses 2 points"):
        best([found["fp32"], refused])


def test_a_graph_that_is_not_its_sources_is_refused(joint_release: Path, tasks: list[Graded], tmp_path: Path) -> None:
    """The golden set is another model's: every precision is off, and none is served either."""
    release = shutil.copytree(joint_release, tmp_path / "release")
    golden = read_golden(release)
    assert golden is not None
    write_golden(release, golden.windows, -golden.logits)
    manifest = releases.read_manifest(release)
    files = manifest.files | {GOLDEN: releases.file_sha256(release / GOLDEN)}
    releases.write_manifest(release, manifest.model_copy(update={"files": files}))
    (tmp_path / "built").mkdir()
    (only,) = compress(release, tasks, [], tmp_path / "built", ignore, precisions=["fp16"], device="cpu")
    assert "another label for" in str(only.refused)
    assert only.runtime == "onnxruntime-fp32"


def test_what_cannot_be_compressed_says_why(joint_release: Path, tasks: list[Graded], tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="serves money too: give labelled texts for each of its tasks"):
        compress(joint_release, tasks[:1], [], tmp_path, ignore)
    old = shutil.copytree(joint_release, tmp_path / "old")
    (old / GOLDEN).unlink()
    manifest = releases.read_manifest(old)
    files = {name: digest for name, digest in manifest.files.items() if name != GOLDEN}
    releases.write_manifest(old, manifest.model_copy(update={"files": files}))
    with pytest.raises(BadRelease, match=r"has no golden\.json to compare with; train it again"):
        compress(old, tasks, [], tmp_path, ignore)


def test_the_command_prints_the_table_and_keeps_one(joint_release: Path, tasks: list[Graded], tmp_path: Path) -> None:
    files = []
    for one in tasks:
        file = tmp_path / f"{one.task.name}.jsonl"
        file.write_text("".join(json.dumps(example._asdict()) + "\n" for example in one.examples), encoding="utf-8")
        files.append(str(file))
    given = [
        "tone",
        "--data",
        files[0],
        "--also",
        f"money={files[1]}",
        "--release",
        str(joint_release),
        "--device",
        "cpu",
    ]
    run = CliRunner().invoke(app, [*given, "--keep", "int8-static", "--out", str(tmp_path / "small"), "--json"])
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    assert [one["precision"] for one in result["variants"]] == list(PRECISIONS)
    assert result["kept"]["directory"] == str(tmp_path / "small")
    assert releases.verify(tmp_path / "small").precision == "int8-static"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    run = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "other")])
    assert (run.exit_code, "--out: needs --keep" in run.stderr) == (2, True)
