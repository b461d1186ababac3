import json
import math
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.datasets import MAX_LINE_BYTES, Example, check, data_hash, imbalance, labels_of, read_jsonl, split
from models.errors import BadDataset
from models.tasks import load_task, shipped_tasks

TEXTS = st.text(min_size=1, max_size=20).filter(str.strip)
EXAMPLES = st.lists(st.builds(Example, TEXTS, st.sampled_from("abc")), max_size=40)


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines))
    return path


def test_reads_examples_in_order_and_ignores_other_fields_and_blank_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", b'{"text": "up", "label": "good", "id": 3}', b"", b'{"label": "bad", "text": "d"}'
    )
    assert read_jsonl(path) == [Example("up", "good"), Example("d", "bad")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON"),
        (b'{"text": "\xff", "label": "a"}', "not JSON in UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "expected an object with `text` and `label`, found list"),
        (b'{"text": "x"}', "field `label` must be a non-empty string, found: missing"),
        (b'{"text": 5, "label": "a"}', "field `text` must be a non-empty string, found: 5"),
        (b'{"text": " ", "label": "a"}', "field `text` must be a non-empty string, found: ' '"),
        (b'{"text": "x", "label": "' + b"l" * 101 + b'"}', "field `label` is longer than 100 characters"),
        (b"x" * (MAX_LINE_BYTES + 1), f"longer than {MAX_LINE_BYTES} bytes"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(tmp_path: Path, line: bytes, message: str) -> None:
    path = write(tmp_path / "bad.jsonl", b'{"text": "fine", "label": "a"}', line)
    with pytest.raises(BadDataset, match=re.escape("bad.jsonl:2: ")) as caught:
        read_jsonl(path)
    assert message in str(caught.value)


def test_an_empty_or_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="no examples"):
        read_jsonl(write(tmp_path / "empty.jsonl"))
    with pytest.raises(BadDataset, match="cannot be read: No such file"):
        read_jsonl(tmp_path / "absent.jsonl")


def test_check_leaves_out_repeats_and_contradictions() -> None:
    checked = check(
        [Example("Buy", "a"), Example("buy ", "a"), Example("both", "a"), Example("both", "b"), Example("sell", "b")]
    )
    assert checked.examples == [Example("Buy", "a"), Example("sell", "b")]
    assert checked.duplicates == 1
    assert checked.contradictions == ["both", "both"]


@pytest.mark.parametrize("examples", [[], [Example("x", "a"), Example("y", "a")]])
def test_one_label_is_not_enough(examples: list[Example]) -> None:
    with pytest.raises(BadDataset, match="at least two labels"):
        check(examples)


def test_the_hash_sees_texts_labels_and_order_only() -> None:
    one, two = Example("x", "a"), Example("y", "b")
    assert data_hash([one, two]) == data_hash(iter([one, two]))
    assert len({data_hash([one, two]), data_hash([two, one]), data_hash([one]), data_hash([Example("xa", "")])}) == 4


def test_labels_and_imbalance() -> None:
    examples = [Example("x", "b"), Example("y", "a"), Example("z", "a")]
    assert labels_of(examples) == ("a", "b")
    assert imbalance(examples) == 2.0


@given(EXAMPLES, st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_split_parts_the_examples_label_by_label(examples: list[Example], fraction: float, seed: int) -> None:
    rest, held_out = split(examples, fraction, seed)
    assert sorted(rest + held_out) == sorted(examples)
    for label in labels_of(examples):
        count = sum(example.label == label for example in examples)
        held = sum(example.label == label for example in held_out)
        assert (0 if count == 1 else 1) <= held <= max(count - 1, 0)
        assert held <= max(1, count * fraction + 0.5)
    assert split(examples, fraction, seed) == (rest, held_out)


def test_a_split_differs_by_seed_and_refuses_odd_fractions() -> None:
    examples = [Example(str(row), "ab"[row % 2]) for row in range(100)]
    assert split(examples, 0.2, 1) != split(examples, 0.2, 2)
    with pytest.raises(ValueError, match="fraction"):
        split(examples, 1.0, 1)


def shingles(text: str) -> frozenset[str]:
    words = " ".join(re.findall(r"\w+", text.lower()))
    return frozenset(words[start : start + 4] for start in range(max(1, len(words) - 3)))


@pytest.mark.parametrize("task", shipped_tasks())
def test_a_starter_corpus_is_large_enough_and_labelled_as_its_task(task: str) -> None:
    folder = Path(load_task.__code__.co_filename).parent / "tasks" / task
    for part, least in (("train", 60), ("test", 15)):
        examples = read_jsonl(folder / f"{part}.jsonl")
        labels = [example.label for example in examples]
        assert set(labels) == set(load_task(task).labels)
        assert labels == sorted(labels)
        assert min(labels.count(label) for label in set(labels)) >= least
        assert check(examples).examples == examples
        content = (folder / f"{part}.jsonl").read_bytes()
        assert b"\r" not in content
        assert all(set(json.loads(line)) == {"text", "label"} for line in content.splitlines())


@pytest.mark.parametrize("task", shipped_tasks())
def test_a_starter_corpus_holds_no_near_duplicates(task: str) -> None:
    folder = Path(load_task.__code__.co_filename).parent / "tasks" / task
    texts = [example.text for part in ("train", "test") for example in read_jsonl(folder / f"{part}.jsonl")]
    assert near_duplicates(texts, alike=0.6) == []


def test_near_duplicates_are_recognised() -> None:
    texts = ["please close my account", "Please, close my account!", "close the account of my wife", "where is my card"]
    assert near_duplicates(texts, alike=0.6) == [(texts[0], texts[1])]


def near_duplicates(texts: list[str], alike: float) -> list[tuple[str, str]]:
    """Pairs whose shingles overlap by `alike` or more (Jaccard).

    Two such sets share one of their rarest shingles, of n the n - ceil(alike * n) + 1 rarest: only those are looked up.
    """
    grams = [shingles(text) for text in texts]
    frequency = Counter(gram for ours in grams for gram in ours)
    seen: dict[str, list[int]] = defaultdict(list)
    near = []
    for row, ours in enumerate(grams):
        rarest = sorted(ours, key=lambda gram: (frequency[gram], gram))[: len(ours) - math.ceil(alike * len(ours)) + 1]
        for other in sorted({other for gram in rarest for other in seen[gram]}):
            if len(ours & grams[other]) >= alike * len(ours | grams[other]):
                near.append((texts[other], texts[row]))
        for gram in rarest:
            seen[gram].append(row)
    return near
