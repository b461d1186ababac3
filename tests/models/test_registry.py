import json
from pathlib import Path

import pytest

from models import releases
from models.errors import BadReference, IntegrityError, RegistryRefused, ReleaseExists, ReleaseNotFound
from models.lineage import Parent
from models.references import parse_reference
from models.registry import MAX_FILES, Registry, refuse_strange_files
from tests.models.filled import fill


def test_a_release_becomes_a_version_of_each_of_its_tasks(registry: Registry, tmp_path: Path) -> None:
    manifest = fill(tmp_path / "one", "tone", "risk")
    tone, risk = registry.register(tmp_path / "one")
    assert (tone.task, tone.number, risk.task, risk.number) == ("tone", 1, "risk", 1)
    assert registry.tasks() == ["risk", "tone"]
    assert risk.release == tone.release == manifest.release
    assert risk.sha256 == releases.file_sha256(tmp_path / "one" / "manifest.json")
    files = [tmp_path / "one" / name for name in ("manifest.json", "model.onnx", "tokenizer.json")]
    assert risk.total_bytes == sum(path.stat().st_size for path in files)
    assert (risk.aliases, risk.macro_f1, risk.parent) == ((), None, None)


def test_registering_again_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    fill(tmp_path / "one", days=0)
    fill(tmp_path / "two", days=1)
    first = registry.register(tmp_path / "one")
    assert registry.register(tmp_path / "one") == first
    (second,) = registry.register(tmp_path / "two")
    assert [version.number for version in registry.versions("risk")] == [1, 2]
    assert second.number == 2


def test_another_release_cannot_take_an_id(registry: Registry, tmp_path: Path) -> None:
    manifest = fill(tmp_path / "one")
    registry.register(tmp_path / "one")
    releases.write_manifest(tmp_path / "one", manifest.model_copy(update={"seed": 8}))
    with pytest.raises(ReleaseExists, match=r"models:/risk/1 is another release of the id .*never changes"):
        registry.register(tmp_path / "one")


def test_aliases_move_and_go(registry: Registry, tmp_path: Path) -> None:
    for days in (0, 1):
        fill(tmp_path / str(days), days=days)
        (version,) = registry.register(tmp_path / str(days))
        registry.set_alias(version, "champion")
    first, second = registry.versions("risk")
    assert (first.aliases, second.aliases) == ((), ("champion",))
    registry.set_alias(first, "champion")
    registry.set_alias(second, "challenger")
    assert registry.resolve(parse_reference("models:/risk@champion")).number == 1
    assert registry.resolve(parse_reference("models:/risk/2")).aliases == ("challenger",)
    registry.remove_alias("risk", "champion")
    with pytest.raises(ReleaseNotFound, match=r"risk@champion: not in .*: risk/1, risk/2 @challenger$"):
        registry.resolve(parse_reference("models:/risk@champion"))
    with pytest.raises(BadReference, match="no alias"):
        registry.set_alias(second, "latest")


def test_what_is_not_there_says_what_is(registry: Registry) -> None:
    assert registry.versions("risk") == []
    assert registry.tasks() == []
    with pytest.raises(ReleaseNotFound, match="has of risk: nothing"):
        registry.resolve(parse_reference("models:/risk/3"))


def test_lineage_and_grades_are_seen_in_mlflow_too(registry: Registry, tmp_path: Path) -> None:
    parent = Parent(release="risk-20261101-00000000", sha256="e" * 64)
    manifest = fill(tmp_path / "one")
    graded = manifest.heads[0].model_copy(update={"metrics": {"dev": {"macro_f1": 0.9125, "accuracy": 0.93, "n": 3}}})
    releases.write_manifest(tmp_path / "one", manifest.model_copy(update={"heads": (graded,), "parent": parent}))
    (version,) = registry.register(tmp_path / "one")
    assert (version.macro_f1, version.parent) == (0.9125, parent.release)
    run = registry._client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"dev/risk/macro_f1": 0.9125, "dev/risk/accuracy": 0.93}
    assert run.data.params["data.risk"] == "d.jsonl, 2 rows"
    assert run.data.params["seed"] == "7"
    tags = registry._client.get_model_version("risk", "1").tags
    assert tags["streamgauge.data_sha256"] == "0" * 64
    assert tags["streamgauge.parent_sha256"] == "e" * 64


def test_models_of_others_in_the_same_registry_are_left_alone(registry: Registry, tmp_path: Path) -> None:
    registry._client.create_registered_model("their-forest")
    registry._client.create_registered_model("risk")
    registry._client.create_model_version("risk", "file:///nowhere", tags={"made": "by hand"})
    assert registry.tasks() == []
    assert registry.versions("risk") == []
    fill(tmp_path / "one")
    (version,) = registry.register(tmp_path / "one")
    assert version.number == 2
    assert registry.tasks() == ["risk"]
    with pytest.raises(ReleaseNotFound):
        registry.resolve(parse_reference("models:/risk/1"))


def test_tags_that_somebody_changed_are_named(registry: Registry, tmp_path: Path) -> None:
    fill(tmp_path / "one")
    registry.register(tmp_path / "one")
    registry._client.set_model_version_tag("risk", "1", "streamgauge.bytes", "many")
    with pytest.raises(IntegrityError, match=r"models:/risk/1: its tags were changed .*many"):
        registry.versions("risk")


def test_half_a_release_and_a_strange_one_are_not_registered(registry: Registry, tmp_path: Path) -> None:
    manifest = fill(tmp_path / "one")
    (tmp_path / "one" / "model.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"model\.onnx: is not the file"):
        registry.register(tmp_path / "one")
    for name in ("weights.pkl", "model.pt", "setup.py", "noend"):
        strange = manifest.model_copy(update={"files": {**manifest.files, name: "0" * 64}})
        with pytest.raises(IntegrityError, match=rf"{name}: no file of a release; those end in \.onnx, \.json, \.md"):
            refuse_strange_files(strange, "here")
    many = {f"{number}.json": "0" * 64 for number in range(MAX_FILES + 1)}
    with pytest.raises(IntegrityError, match="lists 33 files, allowed 32"):
        refuse_strange_files(manifest.model_copy(update={"files": many}), "here")
    assert registry.tasks() == []


def test_an_address_that_mlflow_does_not_know_is_refused() -> None:
    with pytest.raises(RegistryRefused, match="registry gopher://there"):
        Registry("gopher://there").tasks()


def test_what_mlflow_keeps_is_the_release_itself(registry: Registry, tmp_path: Path) -> None:
    fill(tmp_path / "one")
    (version,) = registry.register(tmp_path / "one")
    registry.download(version, "manifest.json", tmp_path / "copy.json")
    assert json.loads((tmp_path / "copy.json").read_text())["release"] == version.release
    with pytest.raises(ReleaseNotFound, match=r"No such artifact"):
        registry.download(version, "absent.json", tmp_path / "copy.json")
