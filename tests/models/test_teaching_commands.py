import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from models.bases import read_record
from models.datasets import Example
from models.releases import read_manifest
from streams import model_commands, pretrain_command
from tests.models.tiny import make_examples

pytestmark = pytest.mark.usefixtures("home")
DataFile = Callable[[str, list[Example]], Path]

app = typer.Typer()
app.command()(model_commands.train)
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


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "tone", "--data", "DATA", "--unlabelled", "x"], "--unlabelled x: nobody speaks of its texts"),
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
