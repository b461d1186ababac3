import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from models.bases import bases_home, read_record
from models.datasets import Example
from models.releases import read_manifest
from streams import pretrain_command, train_command
from tests.models.tiny import make_examples

pytestmark = pytest.mark.usefixtures("home")
DataFile = Callable[[str, list[Example]], Path]

app = typer.Typer()
app.command()(train_command.train)
app.command()(pretrain_command.pretrain)


def test_an_encoder_is_pretrained_then_taught(
    tiny_base: Path, tiny_release: Path, data_file: DataFile, tmp_path: Path
) -> None:
    train, dev = data_file("train.jsonl", make_examples(20)), data_file("dev.jsonl", make_examples(10, start=500))
    unlabelled = data_file("news.jsonl", [*make_examples(60, start=200), *make_examples(10, start=500)])
    base, out = tmp_path / "bases" / "news", tmp_path / "release"
    options = ["--data", str(unlabelled), "--leave-out", str(dev), "--base", str(tiny_base), "--out", str(base)]
    run = CliRunner().invoke(app, ["pretrain", *options, "--epochs", "1", "--max-tokens", "64", "--json"])
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    record = read_record(base)
    assert record is not None
    assert (result["name"], result["sha256"], result["texts"]) == ("news", record.sha256, 60)
    assert result["metrics"] == record.metrics

    options = ["--data", str(train), "--dev", str(dev), "--base", str(base), "--method", "head", "--epochs", "1"]
    options += ["--teacher", str(tiny_release), "--unlabelled", str(unlabelled), "--out", str(out), "--json"]
    run = CliRunner().invoke(app, ["train", "tone", *options])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["rows"] == 20 + 60  # of the unlabelled texts those of --dev are left out
    manifest = read_manifest(out)
    assert (manifest.base.name, manifest.base.sha256, manifest.base.parent) == ("news", record.sha256, record.parent)
    teacher = read_manifest(tiny_release).release
    assert manifest.head("tone").data.name == f"train.jsonl + 60 unlabelled texts, taught by {teacher}"


@pytest.mark.slow
def test_an_encoder_that_was_fetched_teaches_unasked_and_one_that_was_not_is_spoken_of(
    tiny_base: Path, data_file: DataFile, home: Path, tmp_path: Path
) -> None:
    train, dev = data_file("train.jsonl", make_examples(40)), data_file("dev.jsonl", make_examples(10, start=500))
    task = tmp_path / "tone.toml"
    task.write_text(f'name = "tone"\nbase = "{tiny_base}"\nmax_tokens = 24\n')
    options = ["train", str(task), "--data", str(train), "--dev", str(dev), "--epochs", "1", "--json"]

    run = CliRunner().invoke(app, [*options, "--out", str(tmp_path / "alone")])
    assert run.exit_code == 0, run.output
    assert "streamgauge bases fetch all-mpnet-base-v2, then the same command again" in run.stderr
    assert json.loads(run.stdout)["recipe"] == "standard"

    shutil.copytree(tiny_base, bases_home() / "all-mpnet-base-v2")
    run = CliRunner().invoke(app, [*options, "--out", str(tmp_path / "taught")])
    assert run.exit_code == 0, run.output
    assert "recipe taught: " in run.stderr and "bases fetch" not in run.stderr
    result = json.loads(run.stdout)
    assert (result["recipe"], result["rows"]) == ("taught", 40)

    run = CliRunner().invoke(app, [*options, "--out", str(tmp_path / "own"), "--base", str(tiny_base)])
    assert json.loads(run.stdout)["recipe"] == "standard"  # who names an encoder means that one


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["train", "tone", "--data", "DATA", "--unlabelled", "DATA"],
            ": nobody speaks of its texts without a --teacher",
        ),
        (["train", "tone", "--data", "DATA", "--unlabelled", "absent.jsonl"], "absent.jsonl: cannot be read"),
        (["train", "tone", "--data", "DATA", "--recipe", "taught"], "get it with: streamgauge bases fetch all-mpnet"),
        (["train", "tone", "--data", "DATA", "--teacher", "nobody"], "task 'tone' has no release 'nobody'"),
        (["train", "tone", "--data", "DATA", "--teacher", "base:"], "expected base:NAME or base:NAME@SEED"),
        (["pretrain", "--data", "DATA", "--out", "DATA"], "is there already"),
        (["pretrain", "--data", "absent.jsonl", "--out", "OUT"], "absent.jsonl: cannot be read"),
        (["pretrain", "--data", "DATA", "--out", "OUT", "--base", "./absent"], "no such encoder"),
    ],
)
def test_errors_say_what_and_exit(data_file: DataFile, tmp_path: Path, args: list[str], message: str) -> None:
    data = data_file("train.jsonl", make_examples(40))
    named = [arg.replace("DATA", str(data)).replace("OUT", str(tmp_path / "out")) for arg in args]
    run = CliRunner().invoke(app, named)
    assert run.exit_code == 2, run.output
    assert message in run.stderr.replace("\n", " ")
    assert run.stdout == ""
