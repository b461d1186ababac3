import json
import random
from pathlib import Path
from string import ascii_lowercase

import pytest

from models.data_checks import DataCheck, Finding, check_parts, read_part

TRAIN = """
{"text": "Where is my card?", "label": "card"}
{"text": "where is  my card?", "label": "card"}
{"text": "My money did not arrive", "label": "transfer"}
{"text": "my money did not arrive", "label": "balance"}
{"text": "?!", "label": "other"}
{"text": "", "label": "other"}
not json
{"text": "please tell me how I can pay the invoice from abroad", "label": "transfer"}
{"text": "Please tell me how I can pay the invoices from abroad", "label": "card"}
"""
DEV = """
{"text": "WHERE IS MY CARD?", "label": "card"}
{"text": "?!", "label": "card"}
{"text": "could you tell me what the balance of my savings account is", "label": "balance"}
{"text": "Please tell me how I can pay the invoice from abroad.", "label": "transfer"}
{"text": "who are you", "label": "chitchat"}
"""


def write(path: Path, lines: str) -> Path:
    path.write_text(lines.lstrip(), encoding="utf-8")
    return path


@pytest.fixture
def checked(tmp_path: Path) -> DataCheck:
    parts = [read_part(write(tmp_path / f"{name}.jsonl", lines)) for name, lines in (("train", TRAIN), ("dev", DEV))]
    return check_parts(parts)


def finding(checked: DataCheck, kind: str, *names: str) -> Finding:
    [found] = [one for one in checked.findings if one.kind == kind and tuple(map(base, one.parts)) == names]
    return found


def base(part: str) -> str:
    return Path(part).name


def test_every_kind_of_fault_is_found_where_it_is(checked: DataCheck) -> None:
    train, both = ("train.jsonl",), ("train.jsonl", "dev.jsonl")
    expected = {
        ("unusable row", *train): 2,
        ("contradicting labels", *train): 2,
        ("duplicate", *train): 1,
        ("text without a word", *train): 1,
        ("text without a word", "dev.jsonl"): 1,
        ("label with few examples", *train): 4,
        ("label with few examples", "dev.jsonl"): 4,
        ("leak", *both): 1,
        ("leak with another label", *both): 1,
        ("label the first part lacks", *both): 1,
        ("near-duplicate with another label", *train): 1,
        ("near leak", *both): 1,
        ("near leak with another label", *both): 1,
    }
    found = {(one.kind, *map(base, one.parts)): one.count for one in checked.findings}
    assert found == expected
    levels = [one.level for one in checked.findings]
    assert levels == sorted(levels)
    assert checked.errors == 5


def test_findings_show_file_line_and_label(checked: DataCheck) -> None:
    assert finding(checked, "leak", "train.jsonl", "dev.jsonl").examples == ("dev.jsonl:1 [card] WHERE IS MY CARD?",)
    assert finding(checked, "leak with another label", "train.jsonl", "dev.jsonl").examples == (
        "dev.jsonl:2 [card] ?!, and in train.jsonl other",
    )
    [near] = finding(checked, "near leak", "train.jsonl", "dev.jsonl").examples
    assert near.startswith("dev.jsonl:4 [transfer] Please tell me") and "train.jsonl:8 [transfer]" in near
    assert finding(checked, "label the first part lacks", "train.jsonl", "dev.jsonl").examples == (
        "chitchat: 1 examples",
    )


def test_clean_data_have_no_findings_and_near_duplicates_can_be_left_out(tmp_path: Path) -> None:
    chooser = random.Random(1)
    texts = ["".join(chooser.choices(ascii_lowercase, k=40)) for _ in range(20)]
    rows = [json.dumps({"text": text, "label": "xy"[row % 2]}) for row, text in enumerate(texts)]
    clean = read_part(write(tmp_path / "clean.jsonl", "\n".join(rows)))
    assert check_parts([clean]) == DataCheck(rows={clean.name: 20}, alike=0.8, findings=())
    rows[0] = rows[0].replace(texts[0], texts[0] + "z")
    near = read_part(write(tmp_path / "near.jsonl", "\n".join(rows)))
    assert {(one.kind, one.count) for one in check_parts([clean, near]).findings} == {("leak", 19), ("near leak", 1)}
    assert {one.kind for one in check_parts([clean, near], alike=None).findings} == {"leak"}
