from pathlib import Path

from models.lineage import VERSION, sources_sha256, this_code


def test_the_code_has_a_version_and_a_hash() -> None:
    code = this_code()
    assert code == this_code()
    assert code.version == VERSION


def test_the_hash_changes_with_sources_and_their_places_alone(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "deep" / "task.toml").write_text("name = 'a'\n")
    first = sources_sha256(tmp_path)
    (tmp_path / "a.pyc").write_bytes(b"compiled")
    (tmp_path / "corpus.jsonl").write_text("{}\n")
    assert sources_sha256(tmp_path) == first
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    moved = sources_sha256(tmp_path)
    (tmp_path / "b.py").write_text("x = 2\n")
    assert len({first, moved, sources_sha256(tmp_path)}) == 3
