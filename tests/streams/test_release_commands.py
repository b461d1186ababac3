import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from models import releases
from models.pulling import cache
from models.registry import Registry
from streams.live import pinned_releases
from streams.release_commands import app
from streams.settings import load_settings
from tests.models.filled import fill


def run(*args: str) -> Result:
    return CliRunner().invoke(app, args)


def test_register_promote_roll_back(registry: Registry, tmp_path: Path) -> None:
    first, second = fill(tmp_path / "one"), fill(tmp_path / "two", days=1)
    done = run("register", "risk", "--release", str(tmp_path / "one"), "--alias", "champion")
    assert (done.exit_code, done.stdout) == (0, f"models:/risk/1 @champion: {first.release}\n")
    done = run("register", "risk", "--release", str(tmp_path / "two"), "--alias", "challenger", "--json")
    (row,) = json.loads(done.stdout)
    assert (row["ref"], row["aliases"], row["release"]) == ("models:/risk/2", ["challenger"], second.release)
    done = run("alias", "models:/risk@challenger", "champion")
    said = f"models:/risk@champion: models:/risk/2, release {second.release}, was models:/risk/1\n"
    assert (done.exit_code, done.stdout) == (0, said)
    assert run("alias", "risk/1", "champion").exit_code == 0
    assert (
        run("alias", "risk@challenger", "--remove").stdout
        == "models:/risk@challenger: named models:/risk/2, names nothing now\n"
    )
    rows = json.loads(run("list", "--json").stdout)
    assert [(row["version"], row["aliases"]) for row in rows] == [(1, ["champion"]), (2, [])]
    assert json.loads(run("list", "risk", "--json").stdout) == rows
    assert json.loads(run("list", "intent", "--json").stdout) == []


def test_an_alias_never_names_what_cannot_serve(registry: Registry, tmp_path: Path) -> None:
    fill(tmp_path / "one")
    (version,) = registry.register(tmp_path / "one")
    artefacts = releases.home() / "registry" / "artifacts" / version.run_id / "artifacts" / "release"
    (artefacts / "model.onnx").write_bytes(b"evil!")
    done = run("alias", "risk/1", "champion")
    assert done.exit_code == 1
    assert "error: models:/risk/1: model.onnx: is not what was registered" in done.stderr
    assert registry.versions("risk")[0].aliases == ()
    done = run("verify", "risk/1")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "register the release again" in done.stderr


def test_show_pull_and_verify(registry: Registry, tmp_path: Path) -> None:
    manifest = fill(tmp_path / "one")
    registry.register(tmp_path / "one")
    assert run("show", "models:/risk/1").stdout.startswith(f"# {manifest.release}\n")
    assert json.loads(run("show", "risk/1", "--json").stdout)["manifest"] == manifest.model_dump(mode="json")
    done = run("pull", "risk/1", "--out", str(tmp_path / "copy"))
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'copy'}\n")
    assert releases.verify(tmp_path / "copy") == manifest
    fill(tmp_path / "full", model=b"another")
    assert run("pull", "risk/1", "--out", str(tmp_path / "full")).exit_code == 2
    done = run("verify", "risk/1", str(tmp_path / "copy"), "--json")
    sha256 = releases.file_sha256(tmp_path / "copy" / "manifest.json")
    assert [(row["ref"], row["sha256"]) for row in json.loads(done.stdout)] == [
        ("risk/1", sha256),
        (str(tmp_path / "copy"), sha256),
    ]
    (tmp_path / "copy" / "model.onnx").write_bytes(b"")
    assert run("verify", str(tmp_path / "copy")).exit_code == 1


def test_tables_for_people(registry: Registry, tmp_path: Path) -> None:
    assert "nothing is registered" in run("list").stdout
    manifest = fill(tmp_path / "one")
    run("register", "risk", "--release", str(tmp_path / "one"), "--alias", "champion")
    shown = run("list").stdout
    for cell in ("risk/1", "champion", manifest.release):
        assert f" {cell} " in shown


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("show", "risk"), "'risk' is no release in the registry: expected models:/TASK@ALIAS"),
        (("pull", "risk@champion"), "models:/risk@champion: not in the registry, which has of risk: nothing"),
        (("alias", "risk/1"), "give either the ALIAS"),
        (("alias", "risk/1", "champion", "--remove"), "give either the ALIAS"),
        (("register", "risk"), "task 'risk' has no release yet"),
        (("list", "Not A Task"), "is no task name"),
        (("list", "--registry", "gopher://me:hunter22@there"), "model registry gopher://there"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(registry: Registry, args: tuple[str, ...], problem: str) -> None:
    done = run(*args)
    assert done.exit_code == 2
    assert problem in " ".join(done.stderr.replace("│", " ").split())
    assert "hunter22" not in done.output


def test_workers_are_pinned_to_what_the_registry_names_at_the_start(registry: Registry, tmp_path: Path) -> None:
    fill(tmp_path / "one")
    (version,) = registry.register(tmp_path / "one")
    registry.set_alias(version, "champion")
    shipped = load_settings(env={})
    named = {"risk": "models:/risk@champion", "intent": "intent-20261122-1a2b3c4d", "unused": "models:/unused/1"}
    settings = shipped.model_copy(update={"models": shipped.models.model_copy(update={"releases": named})})
    pinned = pinned_releases(settings)
    assert pinned == {"STREAMGAUGE_MODELS__RELEASES__RISK": str(cache() / version.sha256)}
    assert releases.verify(Path(pinned["STREAMGAUGE_MODELS__RELEASES__RISK"])).release == version.release
