import json
import random
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streams.data_commands import app
from tests.models.tiny import BAD, GOOD, make_examples


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


def test_augment_writes_the_examples_and_variants_once(train: Path, tmp_path: Path) -> None:
    out, only = tmp_path / "more.jsonl", tmp_path / "only.jsonl"
    result = run("augment", train, "--out", out, "--typos", "1", "--copies", "2", "--json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    rows = out.read_text(encoding="utf-8").splitlines()
    assert made["examples"] == 42 and made["variants"] > 40 and len(rows) == made["examples"] + made["variants"]
    assert run("augment", train, "--out", only, "--typos", "1", "--copies", "2", "--only").exit_code == 0
    assert only.read_text(encoding="utf-8").splitlines() == rows[42:]
    again = run("augment", train, "--out", out)
    assert again.exit_code == 2 and "is there already" in again.output


def test_a_column_that_is_not_there_is_named(dev: Path) -> None:
    result = run("report", dev)
    assert result.exit_code == 2
    assert "dev.csv:1: no column 'text'; there are: 'headline', 'tone'" in result.output


def test_errors_names_a_planted_wrong_label(tiny_base: Path, tmp_path: Path) -> None:
    """Of texts that any bag of words can tell apart, one has the other label."""
    chooser = random.Random(1)
    rows = [
        {"text": " ".join(chooser.choices(words, k=6)), "label": label}
        for _ in range(60)
        for words, label in ((GOOD, "good"), (BAD, "bad"))
    ]
    rows[6]["label"] = "bad"
    data, out = tmp_path / "data.jsonl", tmp_path / "suspects.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = run("errors", data, "--base", tiny_base, "--out", out, "--limit", "200", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["n"] == 120 and found["suspects"] == len(found["rows"])
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert written == found["rows"]
    assert [row["margin"] for row in written] == sorted((row["margin"] for row in written), reverse=True)
    [planted] = [row for row in written if row["where"].endswith("data.jsonl:7")]
    assert (planted["label"], planted["suggested"]) == ("bad", "good")
    shown = run("errors", data, "--base", tiny_base, "--limit", "1")
    assert "of 120 labels are probably wrong" in shown.output
