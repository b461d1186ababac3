import gc
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import datasets
from models.datasets import MAX_LINE_BYTES, Columns, Example, Located, Rejected
from models.errors import BadDataset
from models.readers import read_examples, scan

TWO = [Example("up", "good"), Example("down", "bad")]
CELL = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)


def write_parquet(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path)
    return path


def numbered(path: Path) -> Path:
    """A file as the hub writes them: labels are numbers, and their names stand in a note."""
    note = {"info": {"features": {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["up", "down", "level"], "label": [1, 0, -1]})
    return write_parquet(path, table.replace_schema_metadata({"huggingface": json.dumps(note)}))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "up", "label": "good", "id": 3}\n\n{"label": "bad", "text": "down"}\n'),
        ("a.json", '{"text": "up", "label": "good"}\n{"label": "bad", "text": "down"}'),
        ("a.csv", "id,text,label\n1,up,good\n\n2,down,bad\n"),
        ("a.CSV", '\ufefftext,label\r\nup,good\r\n"down","bad"\r\n'),
        ("a.csv", "label;text\ngood;up\nbad;down\n"),
        ("a.tsv", "text\tlabel\nup\tgood\ndown\tbad"),
    ],
)
def test_text_formats_give_the_same_examples(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read_examples(tmp_path / name) == TWO


def test_parquet_gives_the_same_examples(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2], "text": ["up", "down"], "label": ["good", "bad"]})
    assert read_examples(write_parquet(tmp_path / "a.parquet", table)) == TWO
    assert list(scan(numbered(tmp_path / "b.parquet"))) == [
        Located(f"{tmp_path}/b.parquet: row 1", TWO[0]),
        Located(f"{tmp_path}/b.parquet: row 2", TWO[1]),
        Rejected(f"{tmp_path}/b.parquet: row 3", "field `label` must be a non-empty string, found: None"),
    ]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the library leaves files to the collector
def test_a_hub_data_set_gives_the_same_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's library takes a local folder by the same name: no network is needed to run the real thing."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "acme" / "news"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text("headline,tone\nup,good\ndown,bad\n", encoding="utf-8")
    (folder / "test.csv").write_text("headline,tone\nlevel,7\n", encoding="utf-8")
    columns = Columns("headline", "tone")
    assert read_examples("hub:acme/news", columns) == TWO
    assert read_examples(Path("hub:acme/news#test"), columns) == [Example("level", "7")]
    with pytest.raises(BadDataset, match="hub:acme/news: no column 'text'; there are: 'headline', 'tone'"):
        read_examples("hub:acme/news")
    with pytest.raises(BadDataset, match=r"hub:acme/news#dev: cannot be read from the hub: .*dev"):
        read_examples("hub:acme/news#dev", columns)
    with pytest.raises(BadDataset, match="expected hub:NAME"):
        read_examples("hub:../etc#train", columns)
    gc.collect()  # which finds them here, and not in a test that would fail for it


def test_other_columns_whole_numbers_and_no_labels(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "up", "class": 1}\n{"body": "down", "class": "0"}\n', encoding="utf-8")
    assert read_examples(tmp_path / "a.jsonl", Columns("body", "class")) == [Example("up", "1"), Example("down", "0")]
    assert read_examples(tmp_path / "a.jsonl", Columns("body", None)) == [Example("up", ""), Example("down", "")]
    (tmp_path / "b.csv").write_text("body\nup\n", encoding="utf-8")
    assert read_examples(tmp_path / "b.csv", Columns("body", None)) == [Example("up", "")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,label\nup,good\nup, and away,good\n", "a.csv:3: 3 fields, and the header names 2"),
        ("a.csv", b'text,label\n"two\nlines",good\n,bad\n', "a.csv:4: field `text` must be a non-empty string"),
        ("a.csv", b'text,label\n"up"s,good\n', "a.csv:2: not CSV"),
        ("a.csv", b'text,label\nup,good\n"open,bad\nx,y\n', "a.csv:3: not CSV: unexpected end of data"),
        ("a.csv", b"text,label\nup,\xff\n", "a.csv:2: not UTF-8"),
        ("a.csv", b"text,label\n" + b"x" * (MAX_LINE_BYTES + 1), f"a.csv:2: the line is longer than {MAX_LINE_BYTES}"),
        ("a.csv", b"headline,tone\nup,good\n", "a.csv:1: no column 'text'; there are: 'headline', 'tone'"),
        ("a.csv", b"text,tone\nup,good\n", "a.csv:1: no column 'label'; there are: 'text', 'tone'"),
        ("a.csv", b"", "a.csv:1: no column 'text'; there are: none"),
        ("a.csv", b"text,label\n", "a.csv: no examples"),
        ("a.parquet", b"text,label\nup,good\n", "a.parquet: not Parquet that can be read"),
        (
            "a.jsonl",
            b'{"text": "x", "label": true}',
            "field `label` must be a non-empty string, found: True",
        ),
        ("a.jsonl", b'{"text": "x", "label": 1.0}', "a.jsonl:1: field `label` must be a non-empty string, found: 1.0"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadDataset, match=re.escape(message)):
        read_examples(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadDataset, match=f"{name}: cannot be read: No such file"):
        read_examples(tmp_path / name)


def test_parquet_columns_are_asked_for_by_name(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", pa.table({"text": ["up"], "tone": ["good"]}))
    with pytest.raises(BadDataset, match=r"a\.parquet: no column 'label'; there are: 'text', 'tone'"):
        read_examples(path)


def test_a_scan_goes_on_after_what_is_wrong(tmp_path: Path) -> None:
    long = b"x" * (3 * MAX_LINE_BYTES)
    (tmp_path / "a.jsonl").write_bytes(b"{\n" + long + b'\n{"text": "up", "label": "good"}\n')
    broken, too_long, good = scan(tmp_path / "a.jsonl")
    assert isinstance(broken, Rejected) and broken.where.endswith("a.jsonl:1")
    assert isinstance(too_long, Rejected) and "longer than" in too_long.reason
    assert good == Located(f"{tmp_path}/a.jsonl:3", Example("up", "good"))


@pytest.mark.parametrize(("limit", "value"), [("MAX_ROWS", 2), ("MAX_SOURCE_CHARS", 5)])
def test_a_source_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(datasets, limit, value)
    (tmp_path / "a.csv").write_text("text,label\n" + "up,good\n" * 2, encoding="utf-8")
    assert len(read_examples(tmp_path / "a.csv")) == 2
    (tmp_path / "a.csv").write_text("text,label\n" + "up,good\n" * 3, encoding="utf-8")
    with pytest.raises(BadDataset, match="use a part of it"):
        read_examples(tmp_path / "a.csv")


@settings(deadline=None, max_examples=50)
@given(st.lists(st.builds(Example, CELL, CELL), min_size=1, max_size=5))
def test_csv_keeps_every_text_as_it_is(scratch: Callable[[str], Path], examples: list[Example]) -> None:
    """Commas, quotes, line breaks, any script: what the csv module wrote is what is read."""
    import csv

    path = scratch("any.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([Example._fields, *examples])
    assert read_examples(path) == examples


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("readers")
    return lambda name: folder / name
