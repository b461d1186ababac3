import dataclasses
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from models import pulling, releases
from models.errors import BadReference, IntegrityError, ModelError, RegistryUnavailable, ReleaseNotFound
from models.pulling import LIMIT_S, cache, fetch, pull, pulled
from models.registry import Registry, Version
from tests.models.filled import empty_graph, fill
from tests.models.hostile_graphs import as_initializer, outside

MIB = 1 << 20


@pytest.fixture
def version(registry: Registry, tmp_path: Path) -> Version:
    """A registered release of the task risk, champion."""
    fill(tmp_path / "one")
    (version,) = registry.register(tmp_path / "one")
    registry.set_alias(version, "champion")
    return version


@pytest.fixture
def artefacts(version: Version) -> Path:
    """Where the artefact store keeps that release's files: what whoever may write there can change."""
    return releases.home() / "registry" / "artifacts" / version.run_id / "artifacts" / "release"


WITHOUT_MLFLOW = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {'mlflow', 'sqlalchemy', 'alembic'}:
            raise ImportError('refused: ' + name)
sys.meta_path.insert(0, Refuse())
import streams.worker, streams.cli, models.mlflow_curves
from models.releases import find_release
print(find_release('risk', 'models:/risk@champion'), flush=True)
sys.argv = ['streamgauge', 'releases', 'list']
streams.cli.main()
"""


def test_a_process_of_its_own_brings_what_was_registered(version: Version, tmp_path: Path) -> None:
    """The process that asks for it cannot even import MLflow; the commands of the registry say what to install."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_MLFLOW], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    directory = Path(done.stdout.strip())
    assert directory == cache() / version.sha256
    assert releases.verify(directory) == releases.verify(tmp_path / "one")
    with pytest.raises(ReleaseNotFound, match="no release yet"):
        releases.find_release("risk")  # what was pulled is nobody's newest
    assert 'the model registry needs the registry extra: pip install "streamgauge[registry]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_process_says_comes_back_as_an_error(version: Version, artefacts: Path) -> None:
    (artefacts / "model.onnx").write_bytes(b"evil!")
    with pytest.raises(IntegrityError, match=r"models:/risk/1: model\.onnx: is not what was registered"):
        pulled("models:/risk@champion")
    assert list(cache().iterdir()) == []


def test_a_registered_graph_that_points_outside_of_its_release_is_refused(registry: Registry, tmp_path: Path) -> None:
    manifest = fill(tmp_path / "hostile")
    (tmp_path / "hostile" / "model.onnx").write_bytes(as_initializer(outside()).SerializeToString())
    sha256 = releases.file_sha256(tmp_path / "hostile" / "model.onnx")
    manifest = manifest.model_copy(update={"files": manifest.files | {"model.onnx": sha256}})
    releases.write_manifest(tmp_path / "hostile", manifest)
    says = r"model\.onnx: the tensor 'weight' lies in the file '\.\./\.\./etc/passwd'"
    with pytest.raises(IntegrityError, match=says):
        registry.register(tmp_path / "hostile")
    sha256 = releases.file_sha256(tmp_path / "hostile" / "manifest.json")
    registry._upload(tmp_path / "hostile", manifest, sha256, ["risk"])  # as a registrar would that does not look
    (version,) = registry.versions("risk")
    with pytest.raises(IntegrityError, match=says):
        pull(registry, version, cache())
    assert list(cache().iterdir()) == []


def test_a_registry_that_hangs_is_given_up(version: Version) -> None:
    with pytest.raises(RegistryUnavailable, match=r"models:/risk@champion has not come within 0\.01 s"):
        pulled("models:/risk@champion", limit_s=0.01)
    assert LIMIT_S >= 600
    with pytest.raises(BadReference):
        pulled("models:/../etc/passwd")


def test_an_alias_means_what_it_means_now_and_the_cache_serves(
    registry: Registry, version: Version, tmp_path: Path
) -> None:
    first = pull(registry, version, cache())
    before = (first / "model.onnx").stat().st_mtime_ns
    assert pull(registry, version, cache()) == first
    assert (first / "model.onnx").stat().st_mtime_ns == before
    fill(tmp_path / "two", days=1, model=b"better")
    (second,) = registry.register(tmp_path / "two")
    registry.set_alias(second, "champion")
    assert (pull(registry, second, cache()) / "model.onnx").read_bytes() == empty_graph(b"better")
    assert releases.verify(first).release == version.release


def test_a_damaged_copy_is_fetched_again(registry: Registry, version: Version) -> None:
    directory = pull(registry, version, cache())
    (directory / "model.onnx").write_bytes(b"bit rot")
    assert pull(registry, version, cache()) == directory
    releases.verify(directory)
    (directory / "manifest.json").write_text("{}")
    releases.verify(pull(registry, version, cache()))


def test_fresh_asks_the_registry_whatever_the_cache_has(registry: Registry, version: Version, artefacts: Path) -> None:
    pull(registry, version, cache())
    (artefacts / "tokenizer.json").unlink()
    directory = pull(registry, version, cache())
    with pytest.raises(ReleaseNotFound, match="No such artifact"):
        pull(registry, version, cache(), fresh=True)
    releases.verify(directory)  # a worker may be serving from it


class Evil:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return (open, (str(self.path), "w"))


def _as_manifest(artefacts: Path, change: Callable[[str], str]) -> None:
    path = artefacts / "manifest.json"
    path.write_text(change(path.read_text()))


def _rehashed(version: Version, artefacts: Path) -> Version:
    """The version as a hostile registry would show it: with the hash of the manifest that now lies there."""
    return dataclasses.replace(version, sha256=releases.file_sha256(artefacts / "manifest.json"), total_bytes=MIB)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "tokenizer.json"])
def test_a_changed_file_is_refused_by_name(registry: Registry, version: Version, artefacts: Path, name: str) -> None:
    (artefacts / name).write_bytes((artefacts / name).read_bytes()[:-1] + b"!")
    with pytest.raises(IntegrityError, match=rf"models:/risk/1: {name}: is not what was registered"):
        pull(registry, version, cache())
    assert list(cache().iterdir()) == []


@pytest.mark.parametrize("size", [MIB, 64 * MIB])
def test_a_file_larger_than_registered_never_fills_the_disk(
    registry: Registry, version: Version, artefacts: Path, tmp_path: Path, size: int
) -> None:
    with (artefacts / "model.onnx").open("wb") as file:
        file.truncate(size)
    (tmp_path / "into").mkdir()
    with pytest.raises(IntegrityError, match=r"model\.onnx: larger than what was registered"):
        fetch(registry, version, tmp_path / "into")
    assert sum(path.stat().st_size for path in (tmp_path / "into").iterdir()) <= version.total_bytes


def test_a_link_out_of_the_artefacts_brings_nothing(
    registry: Registry, version: Version, artefacts: Path, tmp_path: Path
) -> None:
    (artefacts / "model.onnx").unlink()
    (artefacts / "model.onnx").symlink_to("/dev/zero")
    with pytest.raises(ModelError, match=r"model\.onnx|Invalid path"):
        pull(registry, version, cache())
    assert list(cache().iterdir()) == []


@pytest.mark.parametrize("name", ["../../escaped.json", "/tmp/escaped.json", "a/b.json", "..", ".hidden.json"])  # noqa: S108
def test_no_name_leads_out_of_the_release(
    registry: Registry, version: Version, artefacts: Path, tmp_path: Path, name: str
) -> None:
    _as_manifest(artefacts, lambda text: text.replace('"tokenizer.json"', f'"{name}"'))
    around = (tmp_path, releases.home())
    before = {path for folder in around for path in folder.rglob("*") if cache() not in path.parents}
    with pytest.raises(IntegrityError, match=r"manifest\.json: files\."):
        pull(registry, _rehashed(version, artefacts), cache())
    after = {path for folder in around for path in folder.rglob("*") if cache() not in path.parents}
    assert after - {cache()} == before


def test_pickles_are_never_fetched(registry: Registry, version: Version, artefacts: Path, tmp_path: Path) -> None:
    payload = pickle.dumps(Evil(tmp_path / "run"))
    (artefacts / "weights.pkl").write_bytes(payload)
    _as_manifest(artefacts, lambda text: text.replace('"tokenizer.json"', '"weights.pkl"'))
    with pytest.raises(IntegrityError, match=r"weights\.pkl: no file of a release"):
        pull(registry, _rehashed(version, artefacts), cache())
    assert not (tmp_path / "run").exists()


def test_a_release_of_another_task_is_not_taken(registry: Registry, version: Version, artefacts: Path) -> None:
    _as_manifest(artefacts, lambda text: text.replace('"task": "risk"', '"task": "tone"'))
    with pytest.raises(IntegrityError, match="models:/risk/1: is a release of tone"):
        pull(registry, _rehashed(version, artefacts), cache())


@pytest.mark.parametrize("claimed", [0, -1, 1 << 40])
def test_absurd_sizes_are_refused_before_anything_is_fetched(
    registry: Registry, version: Version, claimed: int
) -> None:
    with pytest.raises(IntegrityError, match=f"of {claimed} bytes, allowed"):
        pull(registry, dataclasses.replace(version, total_bytes=claimed), cache())


def test_a_folder_or_a_pipe_in_place_of_a_file_is_no_release(
    registry: Registry, version: Version, artefacts: Path
) -> None:
    (artefacts / "tokenizer.json").unlink()
    (artefacts / "tokenizer.json").mkdir()
    with pytest.raises(RegistryUnavailable):
        pull(registry, version, cache())
    shutil.rmtree(artefacts / "tokenizer.json")
    os.mkfifo(artefacts / "tokenizer.json")
    with pytest.raises(RegistryUnavailable):
        pull(registry, version, cache())
    assert list(cache().iterdir()) == []


def test_the_limit_on_files_holds_only_meanwhile(tmp_path: Path) -> None:
    with pulling._files_end_at(10):
        (tmp_path / "small").write_bytes(b"x" * 10)
        with pytest.raises(OSError, match="File too large"):
            (tmp_path / "large").write_bytes(b"x" * 11)
    (tmp_path / "large").write_bytes(b"x" * 11)
