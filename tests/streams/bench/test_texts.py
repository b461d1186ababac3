from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from streams.bench.texts import BadTexts, events, load_texts


@pytest.fixture
def two_files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, count in zip(paths, (2, 50), strict=True):
        lines = [json.dumps({"text": f"{path.stem} {number}", "more": 1}) for number in range(count)]
        path.write_text("\n".join(lines) + "\n\n")
    return paths


def test_texts_are_spread_evenly_over_the_files_and_a_short_one_is_read_again(two_files: list[Path]) -> None:
    texts = load_texts(two_files, 20)
    assert Counter(text[0] for text in texts) == {"a": 10, "b": 10}
    assert len(set(texts)) == 20
    assert {"a 0", "a 1", "a 0 (2)", "a 1 (5)"} <= set(texts)


def test_texts_are_mixed_and_always_the_same(two_files: list[Path]) -> None:
    texts = load_texts(two_files, 20)
    assert texts == load_texts(two_files, 20)
    assert [text[0] for text in texts] != ["a", "b"] * 10


def test_without_files_there_are_the_samples() -> None:
    texts = load_texts([], 1000)
    assert len(set(texts)) == 1000 == len([text for text in texts if text])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"text": "fine"}\n{"text": ""}', "line 2"),
        ('{"text": 3}', "line 1"),
        ("[]", "line 1"),
        ("{", "line 1"),
        ('{"words": "x"}', "line 1"),
        ("\n", "no line"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(BadTexts, match=rf"--texts .*bad\.jsonl.*{says}"):
        load_texts([tmp_path / "bad.jsonl"], 3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTexts, match=r"none\.jsonl: cannot be read"):
        load_texts([tmp_path / "none.jsonl"], 3)


def test_an_event_has_its_place_as_id() -> None:
    first, second = (json.loads(one) for one in events(["a", "b"], "at70-"))
    assert (first["id"], second["id"]) == ("at70-0", "at70-1")
    assert (first["text"], second["text"]) == ("a", "b")
