from collections.abc import Callable
from pathlib import Path

import pytest

from models.datasets import Example, check, data_hash, read_jsonl
from models.errors import BadDataset
from models.learning.old_data import old_data
from models.releases import Data, Manifest, read_manifest
from models.starter import corpus_path
from tests.models.tiny import make_examples

Write = Callable[[str, list[Example]], Path]


@pytest.fixture
def champion(tiny_release: Path) -> Manifest:
    return read_manifest(tiny_release)


def test_what_was_given_once_stays_until_it_is_given_anew(champion: Manifest, data_file: Write, tmp_path: Path) -> None:
    data, apart = data_file("data.jsonl", make_examples(60)), data_file("apart.jsonl", make_examples(20, start=50))
    first = old_data(champion, "tone", tmp_path / "tone", data, apart)
    assert first.hold_out == make_examples(20, start=50)
    assert first.old == make_examples(50)  # none of the hold-out is rehearsed
    data.unlink()
    assert old_data(champion, "tone", tmp_path / "tone") == first
    other = data_file("other.jsonl", make_examples(10, start=90))
    assert old_data(champion, "tone", tmp_path / "tone", hold_out=other).hold_out == make_examples(10, start=90)
    assert old_data(champion, "tone", tmp_path / "tone").old == first.old


def test_without_a_hold_out_the_tenth_serves_that_the_champion_never_learned(
    champion: Manifest, tiny_release: Path, data_file: Write, tmp_path: Path
) -> None:
    found = old_data(champion, "tone", tmp_path / "tone", data_file("data.jsonl", make_examples(160)))
    assert len(found.hold_out) == champion.head("tone").metrics["dev"]["n"] == 16
    assert not set(found.old) & set(found.hold_out)
    assert sorted([*found.old, *found.hold_out]) == sorted(make_examples(160))


def test_a_champion_of_unknown_data_asks_for_them(champion: Manifest, tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=r"trained on tone.jsonl, which is not kept with it: say where .* --data"):
        old_data(champion, "tone", tmp_path / "tone")
    assert not (tmp_path / "tone").exists()


def test_a_starter_brings_its_own(champion: Manifest, tmp_path: Path) -> None:
    corpus = check(read_jsonl(corpus_path("risk", "train"))).examples
    head = champion.heads[0].model_copy(
        update={"task": "risk", "data": Data(name="starter-risk", sha256=data_hash(corpus), rows=len(corpus))}
    )
    found = old_data(champion.model_copy(update={"heads": (head,)}), "risk", tmp_path / "risk")
    assert found.hold_out == check(read_jsonl(corpus_path("risk", "test"))).examples
    assert 0 < len(found.old) <= len(corpus)
