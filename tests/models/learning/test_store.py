from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from models.errors import BadTask, IntegrityError
from models.learning import store as store_module
from models.learning.opinions import Opinion, Position, Withdrawal, fold, opinions_of
from models.learning.store import Contents, DatasetStore, ReadUpTo, VersionManifest, Waiting
from models.learning.tables import FILES
from models.releases import file_sha256
from tests.models.learning.rows import label, withdraw

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SAID = [
    label("smishing", 1.0, "ann", "chat/0/1", 0),
    label("ham", 2.0, "bob", "chat/0/1", 1, note="looks fine\u2026"),
    label("ham", 3.0, "ann", "chat/0/2", 2),
    withdraw(4.0, "ann", "chat/0/2", 3),
]
WAITING = Waiting(Position(1, 9), 7.5, None, None, b"\xff{}", (("n", b"\x00"), ("n", None)))


def contents(waiting: tuple[Waiting, ...] = (WAITING,)) -> Contents:
    return Contents(fold({}, SAID, ("ham", "smishing"), 100).ledger, waiting)


def read_up_to(offset: int) -> ReadUpTo:
    return ReadUpTo(topic="feedback", topic_id="abc", offsets={0: offset, 1: 10})


def add(store: DatasetStore, what: Contents, offset: int = 4, **ends: int) -> VersionManifest:
    return store.add(what, ends, read_up_to(offset), NOW)


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore("risk", tmp_path)


def test_what_is_put_in_comes_out(store: DatasetStore) -> None:
    assert (store.numbers(), store.head(), store.opinions()) == ([], None, [])
    manifest = add(store, contents(), labelled=3, withdrawn=1)
    assert store.head() == manifest
    assert store.contents(1) == contents()
    assert store.opinions() == opinions_of(contents().ledger)
    said = (manifest.opinions, manifest.withdrawals, manifest.waiting, manifest.annotators, manifest.disputed)
    assert said == (2, 1, 1, 2, 1)
    assert manifest.labels == {"ham": 1, "smishing": 1}
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_a_file_has_a_column_for_each_field_of_its_rows() -> None:
    for name, kind in (
        ("opinions.parquet", Opinion),
        ("withdrawals.parquet", Withdrawal),
        ("waiting.parquet", Waiting),
    ):
        own = {field.name for field in fields(kind)} - {"task", "at"}
        assert set(FILES[name]) == own | {"partition", "offset"}


def test_a_version_names_its_parent_and_goes_on_with_its_counts(store: DatasetStore) -> None:
    first = add(store, contents(), labelled=3)
    second = add(store, Contents({}), offset=9, labelled=1, duplicate=2)
    assert first.parent is None and second.parent is not None
    assert second.parent.sha256 == file_sha256(store.path(1) / "manifest.json")
    assert second.ends == {"duplicate": 2, "labelled": 4}
    assert (store.opinions(), len(store.opinions(1))) == ([], 2)


def test_the_content_hash_is_that_of_the_rows(store: DatasetStore, tmp_path: Path) -> None:
    one = add(store, contents())
    turned = Contents(dict(reversed(list(contents().ledger.items()))), contents().waiting)
    other = DatasetStore("risk", tmp_path / "elsewhere")
    assert add(other, turned).content_sha256 == one.content_sha256
    assert add(other, contents(())).content_sha256 != one.content_sha256


def test_offsets_count_for_the_topic_they_were_read_from() -> None:
    read = read_up_to(4)
    assert [read.start("feedback", "abc", part) for part in (0, 1, 2)] == [4, 10, 0]
    assert read.start("feedback", "made-anew", 0) == read.start("other", "abc", 0) == 0


@pytest.mark.parametrize("name", ["opinions.parquet", "withdrawals.parquet", "waiting.parquet", "manifest.json"])
def test_a_file_that_was_changed_is_not_read(store: DatasetStore, name: str) -> None:
    add(store, contents())
    file = store.path(1) / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(IntegrityError, match=name):
        store.contents(1)


def test_a_version_of_another_task_is_refused(store: DatasetStore, tmp_path: Path) -> None:
    add(store, contents())
    other = DatasetStore("intent", tmp_path)
    other.folder.mkdir(parents=True)
    store.path(1).rename(other.path(1))
    with pytest.raises(IntegrityError, match="version 1 of 'risk'"):
        other.head()


def test_a_name_that_leads_elsewhere_is_no_task() -> None:
    with pytest.raises(BadTask):
        DatasetStore("../risk")


class Cut(BaseException):
    """The process ends here: nothing cleans up after it."""


def cuts(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ends the work at the nth touch of the disk: before a file, a flush or a rename."""
    left = [0]

    def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Cut
            return original(*args, **kwargs)

        return step

    for name in ("write_table", "flush"):
        monkeypatch.setattr(store_module, name, wrapped(getattr(store_module, name)))
    for name in ("write_text", "rename"):
        monkeypatch.setattr(Path, name, wrapped(getattr(Path, name)))

    def cut_at(step: int) -> None:
        left[0] = step

    return cut_at


def cut_off(store: DatasetStore, cut_at: Callable[[int], None], work: Callable[[], object]) -> Iterator[int]:
    """The work cut off at its first touch of the disk, its second, and so on, until it gets through."""
    for step in count(1):
        cut_at(step)
        try:
            work()
        except Cut:
            yield step
        else:
            cut_at(0)
            return


def test_a_version_is_whole_or_absent_wherever_its_making_ends(
    store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store, contents(), offset=4)
    grown = replace(contents(), waiting=())
    steps = 0
    for _ in cut_off(store, cuts(monkeypatch), lambda: add(store, grown, offset=5)):
        steps += 1
        head = store.head()
        assert head is not None
        assert head.feedback == read_up_to(4 if head.version == 1 else 5)
        assert store.contents(head.version) == (contents() if head.version == 1 else grown)
    assert steps >= 10
    assert [one.name for one in store.folder.iterdir() if one.name.startswith(".")] == []


def test_old_versions_go_and_kept_ones_stay(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        add(store, contents())
    store.keep(2, "trained risk-20261123-1a2b3c4d")
    for _ in cut_off(store, cuts(monkeypatch), lambda: store.prune(2)):
        for version in store.numbers():
            assert store.contents(version) == contents()
    assert store.numbers() == [2, 4, 5]
    assert store.prune(2) == []
    assert add(store, contents()).version == 6
