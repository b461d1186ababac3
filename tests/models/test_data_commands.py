import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streams.data_commands import app
from tests.models.tiny import make_examples


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def plain(result: Result) -> str:
    return re.sub(r"[\s│┃]+", " ", result.output)


@pytest.fixture
def train(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    rows = [*make_examples(40), *make_examples(2)]
    path.write_text("".join(json.dumps(row._asdict()) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    path = tmp_path / "dev.csv"
    rows = [f"{one.text},{one.label}\n" for one in [*make_examples(1), *make_examples(10, start=500)]]
    path.write_text("headline,tone\n" + "".join(rows), encoding="utf-8")
    return path


def test_check_ends_with_1_and_names_the_leak(train: Path, dev: Path, tmp_path: Path) -> None:
    same = tmp_path / "dev.jsonl"
    assert run("convert", dev, "--out", same, "--text-column", "headline", "--label-column", "tone").exit_code == 0
    result = run("check", train, same, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["rows"] == {str(train): 42, str(same): 11}
    kinds = {(one["kind"], one["level"]): one["count"] for one in found["findings"] if one["kind"] != "near leak"}
    assert kinds[("leak", "error")] == 1 and kinds[("duplicate", "warning")] == 2
    shown = run("check", train, same, "--no-near").output
    assert "error: leak, train.jsonl and dev.jsonl: 1" in shown and "dev.jsonl:1 [bad]" in shown
    assert run("check", train, "--no-near").exit_code == 0


def test_report_counts_labels(train: Path) -> None:
    found = json.loads(run("report", train, "--json").stdout)
    assert {row["label"]: row["count"][str(train)] for row in found["labels"]} == {"bad": 21, "good": 21}
    assert "21 (50.0%)" in plain(run("report", train))


def test_a_column_that_is_not_there_is_named(dev: Path) -> None:
    result = run("report", dev)
    assert result.exit_code == 2
    assert "dev.csv:1: no column 'text'; there are: 'headline', 'tone'" in result.output
