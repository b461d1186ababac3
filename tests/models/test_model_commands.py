import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from models import releases
from models.datasets import Example
from models.registry import Registry
from models.tracking import EXPERIMENT
from streams import classify_command, evaluate_command, train_command
from streams.classify_command import MAX_TEXT_BYTES, read_lines
from tests.models.tiny import make_examples, make_money

pytestmark = pytest.mark.usefixtures("home")
DataFile = Callable[[str, list[Example]], Path]
RUNTIME = ["--runtime", "onnxruntime-fp32"]

app = typer.Typer()
for command in (train_command.train, evaluate_command.evaluate, classify_command.classify):
    app.command()(command)

ROOT = Path(train_command.__file__).parents[1]
WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "peft", "onnx", "sklearn"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Refuse())
import typer
from streams import classify_command, evaluate_command, train_command
app = typer.Typer()
for command in (train_command.train, evaluate_command.evaluate, classify_command.classify):
    app.command()(command)
app()
"""


def without_torch(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *args],
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        check=False,
    )


def test_train_then_evaluate(
    tiny_base: Path, tiny_release: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On what `data convert` reads, too: here a CSV table to learn from and Parquet to grade on, with other columns.

    The curves are kept in MLflow, the release it is to replace goes on record.
    """
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.address)
    examples = make_examples(80)
    with (tmp_path / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("headline", "source", "tone"), *((one.text, "a", one.label) for one in examples)])
    later = make_examples(20, start=500)
    dev = {"headline": [one.text for one in later], "tone": [one.label for one in later], "source": ["b"] * 20}
    pq.write_table(pa.table(dev), tmp_path / "dev.parquet")
    table, graded = (str(tmp_path / name) for name in ("train.csv", "dev.parquet"))
    columns = ["--text-column", "headline", "--label-column", "tone"]
    quick = ["--base", str(tiny_base), "--epochs", "1", "--method", "head", "--parent", str(tiny_release), "--json"]
    run = CliRunner().invoke(app, ["train", "tone", "--data", table, "--dev", graded, *quick, *columns])
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    assert (result["task"], result["labels"], result["rows"]) == ("tone", ["bad", "good"], 80)
    assert result["metrics"]["dev"]["n"] == 20
    assert Path(result["directory"]) == releases.home() / "releases" / "tone" / result["release"]
    kept = releases.verify(Path(result["directory"]))
    assert (kept.method, kept.parent) == ("head", releases.as_parent(tiny_release))

    experiment = registry._client.get_experiment_by_name(EXPERIMENT)
    logged = registry._client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]
    assert (logged.info.run_name, logged.info.status) == ("train tone", "FINISHED")
    assert (logged.data.params["recipe"], logged.data.params["seed"]) == (kept.recipe, "7")
    assert "dev/macro_f1/tone" in logged.data.metrics

    evaluate = ["evaluate", "tone", "--data", graded, *RUNTIME, "--json"]
    for release in ([], ["--release", result["release"]], ["--release", result["directory"], "--train", table]):
        run = CliRunner().invoke(app, [*evaluate, *release, *columns])
        assert run.exit_code == 0, run.output
        found = json.loads(run.stdout)
        assert {"task", "release", "n", "accuracy", "macro_f1", "ece", "per_label", "latency"} < set(found)
        assert not {"coverage", "selective_accuracy"} & set(found)
        assert (found["release"], found["n"]) == (result["release"], 20)
        assert ("source", "b") in {(one["by"], one["value"]) for one in found["slices"]}
    run = CliRunner().invoke(app, evaluate)
    assert run.exit_code == 2
    assert "dev.parquet: no column 'text'; there are: 'headline', 'tone', 'source'" in run.stderr.replace("\n", " ")


def test_train_says_which_recipe_it_took_and_why(tiny_base: Path, data_file: DataFile, tmp_path: Path) -> None:
    data = data_file("few.jsonl", make_examples(24))
    quick = ["--base", str(tiny_base), "--epochs", "1", "--knob", "contrast_epochs=1", "--seeds", "2", "--json"]
    curves = ["--curves", str(tmp_path / "curves")]
    run = CliRunner().invoke(app, ["train", "any_name-7", "--data", str(data), *quick, *curves])
    assert run.exit_code == 0, run.output
    assert "recipe few-shot: half of the labels have 12 examples or fewer (up to 16 is few)" in run.stderr
    result = json.loads(run.stdout)
    assert (result["task"], result["labels"], result["recipe"]) == ("any_name-7", ["bad", "good"], "few-shot")
    assert list(result["metrics"]["seeds"]["dev_macro_f1"]) == ["7", "8"]
    knobs = result["metrics"]["training"]["knobs"]
    assert (knobs["contrast_epochs"], knobs["epochs"], knobs["head_start"]) == (1, 1, "centroids")
    assert releases.read_manifest(Path(result["directory"])).recipe == "few-shot"
    assert [path.name for path in (tmp_path / "curves").iterdir() if path.name.startswith("events")]


def test_one_encoder_for_two_tasks(tiny_base: Path, data_file: DataFile, tmp_path: Path) -> None:
    tone, money = data_file("tone.jsonl", make_examples(60)), data_file("money.jsonl", make_money(60))
    dev, out = data_file("dev.jsonl", make_money(12, start=300)), str(tmp_path / "out")
    quick = ["--base", str(tiny_base), "--epochs", "1", "--method", "head", "--out", out]
    joint = ["train", "tone", "--data", str(tone), "--also", f"money={money}", "--also-dev", f"money={dev}", *quick]
    run = CliRunner().invoke(app, joint)
    assert run.exit_code == 0, run.output
    for shown in ("tone", "money", out):
        assert shown in run.stdout.replace("\n", "")
    manifest = releases.verify(Path(out))
    assert [(head.task, head.labels, head.data.rows, head.metrics["dev"]["n"]) for head in manifest.heads] == [
        ("tone", ("bad", "good"), 60, 6),
        ("money", ("dollar", "euro", "yen"), 60, 12),
    ]
    for task, labels in (("tone", 2), ("money", 3)):
        data = str({"tone": tone, "money": money}[task])
        run = CliRunner().invoke(app, ["evaluate", task, "--data", data, "--release", out, *RUNTIME, "--json"])
        assert run.exit_code == 0, run.output
        found = json.loads(run.stdout)
        assert (found["task"], found["release"], len(found["per_label"])) == (task, manifest.release, labels)
        run = CliRunner().invoke(app, ["classify", task, "--release", out, *RUNTIME], input="yen 7\n")
        assert len(json.loads(run.stdout)["scores"]) == labels


def test_what_train_says_of_a_release_of_two_tasks(joint_release: Path) -> None:
    result = train_command._result(releases.read_manifest(joint_release), joint_release, 1.5)
    (also,) = result["also"]
    assert (result["task"], result["labels"], result["rows"]) == ("tone", ["bad", "good"], 160)
    assert (also["task"], also["labels"], also["rows"]) == ("money", ["dollar", "euro", "yen"], 90)
    assert (result["metrics"]["dev"]["n"], also["metrics"]["dev"]["n"]) == (16, 9)
    assert (result["directory"], result["seconds"]) == (str(joint_release), 1.5)


def test_tables_for_people(tiny_release: Path, data_file: DataFile) -> None:
    data = data_file("dev.jsonl", make_examples(20))
    run = CliRunner().invoke(
        app, ["evaluate", "tone", "--data", str(data), "--release", str(tiny_release), *RUNTIME, "--abstain"]
    )
    assert run.exit_code == 0, run.output
    for word in ("precision", "good", "accuracy", "ECE", "decided without a person (score from 0.5 on)"):
        assert word in run.stdout


def test_evaluate_and_classify_run_without_torch(
    tiny_release: Path, data_file: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "new"))  # where nothing was measured with it, either
    data = data_file("dev.jsonl", make_examples(20))
    run = without_torch("evaluate", "tone", "--data", str(data), "--release", str(tiny_release), "--abstain", "--json")
    assert (run.returncode, run.stderr) == (0, b"")
    assert {"coverage", "selective_accuracy"} < set(json.loads(run.stdout))
    run = without_torch("classify", "tone", "--release", str(tiny_release), stdin=b"profit rises\nloss falls\n")
    assert (run.returncode, run.stderr) == (0, b"")
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [(row["text"], row["label"]) for row in rows] == [("profit rises", "good"), ("loss falls", "bad")]
    assert all(row["score"] == max(row["scores"].values()) and row["out_of_scope"] is False for row in rows)
    run = without_torch("train", "tone", "--data", str(data))
    assert run.returncode == 2
    assert b'training needs the train extra: pip install "streamgauge[train]"' in run.stderr


def test_classify_passes_over_what_is_no_text(tiny_release: Path) -> None:
    stdin = b"profit\n\n\xff\xfe\n" + b"x" * (MAX_TEXT_BYTES + 5) + b"\nloss"
    run = CliRunner().invoke(app, ["classify", "tone", "--release", str(tiny_release), *RUNTIME], input=stdin)
    assert run.exit_code == 1
    assert [json.loads(line)["text"] for line in run.stdout.splitlines()] == ["profit", "loss"]
    assert run.stderr.splitlines() == [
        "line 2: empty, passed over",
        "line 3: not UTF-8 (invalid start byte at byte 1), passed over",
        f"line 4: longer than {MAX_TEXT_BYTES} bytes, passed over",
    ]


def test_classify_keeps_order_over_many_batches(tiny_release: Path) -> None:
    texts = [example.text for example in make_examples(700)]
    run = CliRunner().invoke(
        app, ["classify", "tone", "--release", str(tiny_release), *RUNTIME], input="\n".join(texts)
    )
    assert run.exit_code == 0
    assert [json.loads(line)["text"] for line in run.stdout.splitlines()] == texts


def test_a_long_line_is_never_held_whole() -> None:
    class Endless(io.RawIOBase):
        left = 50 * MAX_TEXT_BYTES
        largest = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert 0 < size <= MAX_TEXT_BYTES + 1
            self.left -= size
            return b"x" * size if self.left > 0 else b""

    lines = list(read_lines(Endless()))  # type: ignore[arg-type]
    assert [(line.number, line.problem) for line in lines] == [(1, f"longer than {MAX_TEXT_BYTES} bytes")]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["evaluate", "tone", "--data", "absent.jsonl"], 2, "task 'tone' has no release yet"),
        (["evaluate", "tone", "--data", "absent.jsonl", "--release", "RELEASE"], 2, "absent.jsonl: cannot be read"),
        (["evaluate", "risk", "--data", "absent.jsonl", "--release", "RELEASE"], 2, "a release of task 'tone'"),
        (["evaluate", "Tone!", "--data", "absent.jsonl"], 2, "'Tone!' is no task name"),
        (["classify", "tone", "--release", "nothing/here"], 1, "nothing/here/manifest.json: cannot be read"),
        (["train", "tone", "--data", "absent.jsonl"], 2, "absent.jsonl: cannot be read"),
        (["train", "tone", "--data", "absent.jsonl", "--out", "RELEASE"], 2, "is there already"),
        (["train", "tone", "--data", "absent.jsonl", "--method", "magic"], 2, "magic"),
        (["train", "tone"], 2, "--data"),
        (
            ["train", "tone", "--data", "DATA", "--recipe", "magic"],
            2,
            "recipe 'magic': no such recipe; there are: stan",
        ),
        (["train", "tone", "--data", "DATA", "--knob", "epochs"], 2, "--knob epochs: expected NAME=VALUE"),
        (["train", "tone", "--data", "DATA", "--recipe", "quick", "--knob", "warmup=2"], 2, "warmup: Input should be"),
        (["train", "tone", "--data", "DATA", "--also", "risk"], 2, "--also risk: expected TASK=FILE"),
        (["train", "tone", "--data", "DATA", "--also", "a=x", "--also", "a=y"], 2, "task a is given twice"),
        (["train", "tone", "--data", "DATA", "--also-dev", "risk=x"], 2, "--also-dev risk=...: needs --also risk=FILE"),
        (["train", "tone", "--data", "DATA", "--also", "tone=DATA"], 2, "not all different: tone, tone"),
        (["train", "tone", "--data", "DATA", "--also", "risk=absent.jsonl"], 2, "absent.jsonl: cannot be read"),
    ],
)
def test_errors_say_what_and_exit(
    tiny_release: Path, data_file: DataFile, args: list[str], code: int, message: str
) -> None:
    data = data_file("train.jsonl", make_examples(20))
    run = CliRunner().invoke(
        app, [arg.replace("RELEASE", str(tiny_release)).replace("DATA", str(data)) for arg in args]
    )
    assert run.exit_code == code
    assert message in run.stderr.replace("\n", " ")
    assert run.stdout == ""


def test_left_out_lines_are_reported(data_file: DataFile, tmp_path: Path) -> None:
    examples = [*make_examples(40), make_examples(1)[0], Example("both", "good"), Example("both", "bad")]
    data = data_file("train.jsonl", examples)
    run = CliRunner().invoke(app, ["train", "tone", "--data", str(data), "--base", str(tmp_path / "absent")])
    assert run.exit_code == 2
    assert "1 repeated texts left out" in run.stderr
    assert "2 lines left out whose text carries two labels, such as 'both'" in run.stderr
    assert "absent: no such encoder" in run.stderr
