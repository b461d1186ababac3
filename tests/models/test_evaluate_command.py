"""`streamgauge evaluate` with all it can be asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from models.classifier import Classifier
from models.datasets import Example
from models.embeddings import text_vectors
from models.errors import IntegrityError
from models.evaluation import evaluate as grade
from models.tasks import Task, load_task
from streams import evaluate_command
from tests.models.tiny import ignore, make_examples
from tests.streams.handmade import make_release

DataFile = Callable[[str, list[Example]], Path]
SENTIMENT = [
    *[Example(f"Acme {word} today", label) for word, label in
      (("falls", "negative"), ("opens", "neutral"), ("rises", "positive"))],
    Example("Corvus falls", "positive"),
]  # fmt: skip
RUNTIME = ["--runtime", "onnxruntime-fp32"]

app = typer.Typer()
app.command()(evaluate_command.evaluate)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says of a text what its words `falls`, `opens` and `rises` say."""
    labels = ("negative", "neutral", "positive")
    return make_release(tmp_path_factory.mktemp("by-hand") / "release", {"sentiment": labels})


def test_everything_at_once(by_hand: Path, data_file: DataFile, tmp_path: Path) -> None:
    train = data_file("train.jsonl", [Example("Acme is here", "neutral")])
    data = tmp_path / "dev.jsonl"
    wires = zip(SENTIMENT, ("wire", "wire", "blog", "blog"), strict=True)
    rows = [one._asdict() | {"source": source} for one, source in wires]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["sentiment", "--data", str(data), "--release", str(by_hand), "--train", str(train), *RUNTIME]
    extras = ["--abstain", "--robustness", "--seed", "3", "--report", str(tmp_path / "report")]
    run = CliRunner().invoke(app, [*command, *extras, "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert (found["n"], found["accuracy"], found["ece"]) == (4, 0.75, found["ece_uncalibrated"])
    assert "auc" not in found  # there are three labels
    parts = {(one["by"], one["value"]): one["accuracy"] for one in found["slices"]}
    assert parts == {
        ("length", "0 to 5 words"): 0.75,
        ("source", "blog"): 0.5,
        ("source", "wire"): 1.0,
        ("names", "all names seen in training"): 1.0,
        ("names", "a name not seen in training"): 0.0,
    }
    drops = {one["name"]: one for one in found["robustness"]["drops"]}
    assert found["robustness"]["seed"] == 3
    assert drops["unseen entities"]["changed"] == 4
    assert drops["unseen entities"]["accuracy_drop"] == 0.0
    assert found["report"] == str(tmp_path / "report" / "report.html")
    page = Path(found["report"]).read_text(encoding="utf-8")
    for words in ("Corvus falls", "unseen entities", "all names seen in training", "dev.jsonl"):
        assert words in page
    run = CliRunner().invoke(app, [*command, *extras])
    assert run.exit_code == 0, run.output
    for words in ("before calibration", "worst drop", "contradictions followed", "report.html"):
        assert words in run.stdout


def test_two_labels_have_a_ranking(tiny_release: Path, data_file: DataFile) -> None:
    data = data_file("dev.jsonl", [*make_examples(20), make_examples(1, start=21)[0]])
    run = CliRunner().invoke(app, ["tone", "--data", str(data), "--release", str(tiny_release), *RUNTIME, "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found["positive_label"] == "bad"  # ten of twenty-one
    assert 0.9 <= found["average_precision"] <= 1
    assert 0.9 <= found["auc"] <= 1
    run = CliRunner().invoke(app, ["tone", "--data", str(data), "--release", str(tiny_release), *RUNTIME])
    assert "bad: AUC" in run.stdout


def test_ways_to_tell_what_is_out_of_scope_are_compared(
    tiny_release: Path, tiny_task: Task, data_file: DataFile
) -> None:
    strangers = [Example(f"0123456789 {word}", "oos") for word in ("dollar", "euro", "yen")]
    data, train = data_file("dev.jsonl", make_examples(20) + strangers), data_file("train.jsonl", make_examples(60))
    command = ["tone", "--data", str(data), "--release", str(tiny_release), *RUNTIME, "--train", str(train)]
    run = CliRunner().invoke(app, [*command, "--json"])
    assert run.exit_code == 0, run.output
    scope = json.loads(run.stdout)["out_of_scope"]
    assert (scope["n_inside"], scope["n_outside"], scope["recall"]) == (20, 3, 0.0)  # this release has no threshold
    assert set(scope["by_method"]) == {"energy", "max softmax", "mahalanobis", "nearest neighbour"}
    assert all(0 <= one["auc"] <= 1 and 0 <= one["recall"] <= 1 for one in scope["by_method"].values())
    run = CliRunner().invoke(app, command)
    assert "3 texts out of scope" in run.stdout
    assert "as served: 0.000 of them found" in run.stdout


def test_text_vectors_are_what_the_logits_are_made_of(tiny_release: Path, tiny_task: Task, by_hand: Path) -> None:
    classifier = Classifier.load(tiny_release, tiny_task, runtime="onnxruntime-fp32")
    texts = [one.text for one in make_examples(90)]
    vectors = text_vectors(tiny_release, classifier, texts, ignore)
    assert vectors.shape == (90, 32)
    with_one = np.column_stack([vectors, np.ones(90)])
    logits = classifier.read(texts).logits
    weights = np.linalg.lstsq(with_one, logits, rcond=None)[0]
    assert with_one @ weights == pytest.approx(logits, abs=1e-3)
    sentiment = Classifier.load(by_hand, load_task("sentiment"), runtime="onnxruntime-fp32")
    with pytest.raises(IntegrityError, match="does not end in a linear layer"):
        text_vectors(by_hand, sentiment, texts, ignore)


def test_a_report_needs_its_libraries_before_anything_is_graded(by_hand: Path, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["matplotlib"] = None
import typer
from streams import evaluate_command
app = typer.Typer()
app.command()(evaluate_command.evaluate)
app(["sentiment", "--data", "absent.jsonl", "--release", {str(by_hand)!r}, "--report", {str(tmp_path)!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--report needs the train extra" in done.stderr


def test_calibration_is_graded_before_and_after(tiny_release: Path, tiny_task: Task) -> None:
    found = grade(Classifier.load(tiny_release, tiny_task, runtime="onnxruntime-fp32"), make_examples(40, start=300))
    assert found.ece != found.ece_uncalibrated
    assert 0 <= found.aurc <= 1
