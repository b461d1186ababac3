"""A model registry for tests: MLflow on SQLite and files, as on a machine where nobody has said anything else."""

import shutil
from pathlib import Path

from models.registry import Registry


def made_registry(home: Path) -> Registry:
    """The default registry of a home, its tables made: that takes seconds."""
    registry = Registry(f"sqlite:///{home / 'registry' / 'mlflow.db'}")
    registry.tasks()
    return registry


def emptied(registry: Registry, home: Path) -> Registry:
    """The same without a single release, and with nothing else in its home."""
    for model in registry._client.search_registered_models():
        registry._client.delete_registered_model(model.name)
    for folder in ("pulled", "releases", "registry/artifacts"):
        shutil.rmtree(home / folder, ignore_errors=True)
    return registry
