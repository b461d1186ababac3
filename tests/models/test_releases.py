import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from models import releases
from models.errors import IntegrityError, ReleaseExists, ReleaseNotFound
from models.temperature import Calibration
from tests.models.filled import DAY, fill

OLD: dict[str, Any] = {  # what was at the top of a manifest when a release had one task
    "task": "risk",
    "labels": ["ham", "spam"],
    "temperature": 0.62,
    "data": {"name": "train.jsonl", "sha256": "0" * 64, "rows": 3900},
    "metrics": {"dev": {"macro_f1": 0.95}, "best_epoch": 3},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_home_is_the_environments_or_in_the_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert releases.home() == home
    monkeypatch.setenv("STREAMGAUGE_HOME", "")
    assert releases.home() == Path.home() / ".cache" / "streamgauge"


def test_an_id_names_task_and_day_and_depends_on_files_and_data() -> None:
    ids = [
        releases.release_id(["risk"], DAY, {"m": "1", "t": "2"}, ["d"]),
        releases.release_id(["risk"], DAY, {"t": "2", "m": "1"}, ["d"]),
        releases.release_id(["risk"], DAY, {"m": "1", "t": "3"}, ["d"]),
        releases.release_id(["risk"], DAY, {"m": "1", "t": "2"}, ["e"]),
        releases.release_id(["risk", "tone"], DAY, {"m": "1", "t": "2"}, ["d", "e"]),
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4
    assert ids[4].startswith("risk-tone-20261122-")
    assert ids[0].startswith("risk-20261122-")


def test_a_published_release_verifies_and_others_may_read_it(tmp_path: Path) -> None:
    dest = tmp_path / "out" / "release"
    with releases.workplace(dest.parent) as tmp_dir:
        manifest = fill(tmp_dir)
        assert releases.publish(tmp_dir, dest) == dest
    assert releases.verify(dest) == manifest
    assert stat.S_IMODE(dest.stat().st_mode) == 0o755
    assert os.listdir(dest.parent) == ["release"]


def test_work_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), releases.workplace(tmp_path / "out") as tmp_dir:
        (tmp_dir / "model.onnx").write_bytes(b"half")
        raise RuntimeError
    assert os.listdir(tmp_path / "out") == []


def test_half_a_release_is_not_published(tmp_path: Path) -> None:
    with releases.workplace(tmp_path) as tmp_dir:
        fill(tmp_dir)
        (tmp_dir / "model.onnx").write_bytes(b"gra")
        with pytest.raises(IntegrityError, match=r"model\.onnx"):
            releases.publish(tmp_dir, tmp_path / "release")
    assert not (tmp_path / "release").exists()


def test_publishing_again_changes_nothing_and_never_overwrites(tmp_path: Path) -> None:
    dest = tmp_path / "release"
    first = fill(dest)
    with releases.workplace(tmp_path) as tmp_dir:
        fill(tmp_dir)
        assert releases.publish(tmp_dir, dest) == dest
    with releases.workplace(tmp_path) as tmp_dir:
        fill(tmp_dir, model=b"another")
        with pytest.raises(ReleaseExists, match="choose another directory"):
            releases.publish(tmp_dir, dest)
    assert releases.verify(dest) == first


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_changed_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    fill(tmp_path)
    (tmp_path / name).write_bytes(b"tampered")
    with pytest.raises(IntegrityError, match=f"{name}: is not the file"):
        releases.verify(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name}: cannot be read: No such file"):
        releases.verify(tmp_path)


def test_a_manifest_that_leaves_a_file_out_does_not_verify(tmp_path: Path) -> None:
    manifest = fill(tmp_path)
    listed = {"tokenizer.json": manifest.files["tokenizer.json"]}
    releases.write_manifest(tmp_path, manifest.model_copy(update={"files": listed}))
    with pytest.raises(IntegrityError, match=r"model\.onnx is not listed"):
        releases.verify(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ('"temperature":1.0', '"temperature":0'),
        ('"bends":[]', '"bends":[{"lead":1.0,"temperature":0.0}]'),
        ('"bends":[]', '"bends":[{"lead":1.0,"temperature":NaN}]'),
        ('"bends":[]', '"bends":[{"lead":2.0,"temperature":1.0},{"lead":2.0,"temperature":2.0}]'),
        ('"max_tokens":16', '"max_tokens":1e9'),
        ('"model.onnx":', '"../model.onnx":'),
        ('"labels":["a","b"]', '"labels":["a"]'),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, field: str, value: str) -> None:
    content = fill(tmp_path).model_dump_json()
    assert field in content
    (tmp_path / "manifest.json").write_text(content.replace(field, value))
    with pytest.raises(IntegrityError, match=r"manifest\.json: "):
        releases.read_manifest(tmp_path)


def test_a_missing_or_huge_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"is .* a release"):
        releases.read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(IntegrityError, match="larger than"):
        releases.read_manifest(tmp_path)


def test_the_newest_release_is_found_and_any_by_id_or_directory(home: Path, tmp_path: Path) -> None:
    folder = home / "releases" / "risk"
    old = fill(folder / "one", days=0)
    fill(folder / "two", days=1)
    fill(folder / ".release-unfinished", days=9)
    fill(home / "releases" / "intent" / "other", "intent", days=5)
    assert releases.find_release("risk") == folder / "two"
    assert releases.find_release("risk", old.release) == folder / "one"
    fill(tmp_path / "elsewhere")
    assert releases.find_release("risk", str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"


def test_a_trained_release_goes_before_a_newer_starter(home: Path) -> None:
    starter = fill(home / "starter" / "risk" / "key", days=9)
    assert releases.find_release("risk") == home / "starter" / "risk" / "key"
    fill(home / "releases" / "risk" / "one", days=0)
    assert releases.find_release("risk") == home / "releases" / "risk" / "one"
    assert releases.find_release("risk", starter.release) == home / "starter" / "risk" / "key"


def test_a_release_of_several_tasks_is_found_for_each_of_them(home: Path) -> None:
    single = home / "releases" / "risk" / "one"
    joint = home / "releases" / "tone-risk" / "both"
    fill(single, days=0)
    manifest = fill(joint, "tone", "risk", days=1)
    assert releases.find_release("tone") == releases.find_release("risk") == joint
    assert releases.find_release("risk", manifest.release) == releases.find_release("tone", str(joint)) == joint
    fill(home / "releases" / "risk" / "two", days=2)
    assert releases.find_release("risk") == home / "releases" / "risk" / "two"
    assert releases.find_release("tone") == joint
    assert manifest.head("risk").task == "risk"


def test_two_heads_of_one_task_are_refused(tmp_path: Path) -> None:
    content = fill(tmp_path, "risk", "tone").model_dump_json()
    (tmp_path / "manifest.json").write_text(content.replace('"task":"tone"', '"task":"risk"'))
    with pytest.raises(IntegrityError, match=r"manifest\.json: heads: Value error, two heads of one task"):
        releases.read_manifest(tmp_path)


def test_a_manifest_of_0_1_0_has_one_head(tmp_path: Path) -> None:
    new = fill(tmp_path)
    old = new.model_dump(mode="json", exclude={"heads"}) | OLD
    (tmp_path / "manifest.json").write_text(json.dumps(old))
    manifest = releases.verify(tmp_path)
    (head,) = manifest.heads
    assert (head.task, head.labels, head.calibration) == ("risk", ("ham", "spam"), Calibration(0.62))
    assert (head.data.rows, head.metrics) == (3900, {"dev": {"macro_f1": 0.95}})
    assert releases.find_release("risk", str(tmp_path)) == tmp_path
    assert (manifest.release, manifest.files) == (new.release, new.files)


@pytest.mark.parametrize("field", ["task", "labels", "temperature", "data"])
def test_half_a_manifest_of_0_1_0_is_refused(tmp_path: Path, field: str) -> None:
    old = fill(tmp_path).model_dump(mode="json", exclude={"heads"}) | OLD
    del old[field]
    (tmp_path / "manifest.json").write_text(json.dumps(old))
    with pytest.raises(IntegrityError, match=rf"manifest\.json: heads\.0\.{field}: Field required"):
        releases.read_manifest(tmp_path)


def test_a_damaged_release_is_left_out_of_the_search(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(home / "releases" / "risk" / "good")
    (home / "releases" / "risk" / "bad").mkdir()
    assert releases.find_release("risk") == home / "releases" / "risk" / "good"
    assert "bad/manifest.json" in caplog.text


def test_what_is_not_found_says_what_there_is_and_how_to_make_one(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseNotFound, match=r"no release yet .*none.* streamgauge train risk --data"):
        releases.find_release("risk")
    manifest = fill(home / "releases" / "risk" / "one")
    with pytest.raises(ReleaseNotFound, match=f"no release 'risk-1'.*{manifest.release}"):
        releases.find_release("risk", "risk-1")
    fill(tmp_path / "elsewhere", "intent", "tone")
    with pytest.raises(ReleaseNotFound, match="a release of task 'intent' and 'tone', not of 'risk'"):
        releases.find_release("risk", str(tmp_path / "elsewhere"))
