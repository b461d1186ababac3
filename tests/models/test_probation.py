"""A release is tried where it can do no harm."""

from pathlib import Path

import pytest

from models.errors import IntegrityError
from models.probation import tried
from models.releases import MODEL, file_sha256, read_manifest, write_manifest
from tests.streams.handmade import make_release

HEADS = {"risk": ("benign", "fraud")}


def test_a_good_release_names_its_runtime(tmp_path: Path) -> None:
    assert tried(make_release(tmp_path / "good", HEADS), "cpu", "auto", 1) == "onnxruntime-fp32"


def test_a_graph_that_cannot_be_loaded_is_refused_though_its_hash_is_right(tmp_path: Path) -> None:
    broken = make_release(tmp_path / "broken", HEADS)
    (broken / MODEL).write_bytes(b"\x08\x08 no graph")
    manifest = read_manifest(broken)
    files = {**manifest.files, MODEL: file_sha256(broken / MODEL)}
    write_manifest(broken, manifest.model_copy(update={"files": files}))
    with pytest.raises(IntegrityError, match="broken"):
        tried(broken, "cpu", "auto", 1)


def test_a_process_that_does_not_come_back_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"cannot be loaded within 0\.01 s"):
        tried(make_release(tmp_path / "slow", HEADS), "cpu", "auto", 1, limit_s=0.01)


def test_a_process_that_ends_without_an_answer_says_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As native code does that crashes: here an interpreter that is none."""
    crash = tmp_path / "python"
    crash.write_text("#!/bin/sh\necho corrupted size >&2\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(crash))
    with pytest.raises(IntegrityError, match=r"ends a process with code -11: corrupted size"):
        tried(make_release(tmp_path / "crashing", HEADS), "cpu", "auto", 1)
