"""Which package may import which, held by reading every import, and by a worker that must not have torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from streams.decisions import APP_VERSION

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "sentence_transformers", "sklearn", "onnxscript", "peft")
HALF = (
    "training",
    "network",
    "losses",
    "resuming",
    "origins",
    "pretraining",
    "export",
    "packed_export",
    "label_errors",
    "vectors",
)
TRAINING_HALF = {f"models.{name}" for name in HALF}
LAZY = "runtimes.torch"  # serves with torch where it is installed, and imports it only when it is to


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", modules("models"), ids=lambda path: path.name)
def test_models_never_imports_streams(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] == "streams"]


@pytest.mark.parametrize(
    "path", modules("streams") + modules("models"), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_only_the_training_half_knows_torch(path: Path) -> None:
    if f"{path.parent.name}.{path.stem}" not in {*TRAINING_HALF, LAZY}:
        assert not [name for name in imports(path) if name.split(".")[0] in HEAVY]


def test_the_torch_runtime_imports_torch_only_inside_functions() -> None:
    tree = parsed(ROOT / "models" / "runtimes" / "torch.py")
    for node in tree.body:  # what runs on import; the names under TYPE_CHECKING do not
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not [name for name in names if name.split(".")[0] in HEAVY or name in TRAINING_HALF]


MLFLOW = {"models.tracking", "models.registry", "models.mlflow_curves"}


@pytest.mark.parametrize(
    "path", modules("streams") + modules("models"), ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_mlflow_is_imported_only_where_it_is_used(path: Path) -> None:
    allowed = f"{path.parent.name}.{path.stem}" in MLFLOW
    assert allowed or not [name for name in imports(path) if name.split(".")[0] == "mlflow"]
    for node in parsed(path).body:  # what runs on import
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "")]
        assert not [name for name in names if (name or "").split(".")[0] == "mlflow"]


def test_a_worker_starts_without_the_training_libraries() -> None:
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {(*HEAVY, "mlflow", "sqlalchemy")!r}:
            raise ImportError('refused: ' + name)
sys.meta_path.insert(0, Refuse())
import streams.worker, streams.app, streams.live, streams.cli
print([name for name in sys.modules if name.split('.')[0] in {(*HEAVY, "mlflow", "sqlalchemy")!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", modules("streams") + modules("models"), ids=lambda path: path.name)
def test_only_the_report_draws(path: Path) -> None:
    if path.name not in {"report.py", "drawings.py"} or path.parent.name != "models":
        assert not [name for name in imports(path) if name.split(".")[0] in {"matplotlib", "jinja2"}]


STOCK_FAUST = ROOT / "streams" / "bench" / "systems" / "faust_stock.py"  # a peer, as its own documentation shows it


@pytest.mark.parametrize("path", [one for one in modules("streams") if one != STOCK_FAUST], ids=lambda path: path.name)
def test_no_agent_uses_what_loses_data(path: Path) -> None:
    """`take()` and its kin acknowledge events that were not processed."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"take", "take_events", "take_with_timestamp", "noack_take"}, (
                f"{path}:{node.lineno}"
            )
        assert not isinstance(node, ast.Import) or "pickle" not in [alias.name for alias in node.names]


AGENTS = [path for path in modules("streams") if path != STOCK_FAUST and ".agent(" in path.read_text(encoding="utf-8")]


def test_there_are_agents_to_look_at() -> None:
    assert [path.name for path in AGENTS] == ["app.py"]


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.name)
def test_no_agent_yields(path: Path) -> None:
    """What an agent yields goes to the topic that the record's own header `Faust-Ag-ReplyTo` names."""
    tree = parsed(path)
    coroutines = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)}
    registered = [
        call.args[0].id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Call)
        and isinstance(call.func.func, ast.Attribute)
        and call.func.func.attr == "agent"
        and isinstance(call.args[0], ast.Name)
    ]
    assert registered, f"{path} makes agents in a way that this test does not know"
    for name in registered:
        assert not [node for node in ast.walk(coroutines[name]) if isinstance(node, ast.Yield | ast.YieldFrom)], name
    for node in coroutines.values():  # as a decorator it would be `@app.agent(...)`
        assert not [one for one in node.decorator_list if ".agent" in ast.unparse(one)], node.name


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest = re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)[0]
    assert APP_VERSION == project["version"] == latest


OF_COORDINATORS = (  # librdkafka issue 4605: one of these that cannot be sent ends the whole process
    "describe_consumer_groups",
    "list_consumer_group_offsets",
    "alter_consumer_group_offsets",
    "delete_consumer_groups",
)


@pytest.mark.parametrize("path", modules("streams"), ids=lambda path: path.name)
def test_no_request_of_the_administration_goes_to_a_coordinator(path: Path) -> None:
    assert not [name for name in OF_COORDINATORS if name in path.read_text(encoding="utf-8")]
