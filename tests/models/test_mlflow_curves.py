import shutil
from pathlib import Path
from typing import Any

import pytest

from models import releases
from models.errors import RegistryUnavailable
from models.mlflow_curves import FLUSH_FIGURES, mlflow_curves
from models.registry import Registry
from models.tracking import EXPERIMENT


def newest_run(registry: Registry) -> Any:
    experiment = registry._client.get_experiment_by_name(EXPERIMENT)
    return registry._client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]


def test_figures_and_settings_of_a_run_are_kept(registry: Registry) -> None:
    with mlflow_curves("risk-train", {"epochs": 2, "base": "tiny", "threads": None}) as curves:
        for step in range(FLUSH_FIGURES + 2):
            curves.step({"train/loss": 1 / (step + 1)}, step)
        curves.step({"dev/macro_f1": 0.75}, FLUSH_FIGURES)
    run = newest_run(registry)
    assert (run.info.run_name, run.info.status) == ("risk-train", "FINISHED")
    assert run.data.params == {"epochs": "2", "base": "tiny"}
    history = registry._client.get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in history] == [(n, 1 / (n + 1)) for n in range(FLUSH_FIGURES + 2)]
    assert run.data.metrics["dev/macro_f1"] == 0.75


def test_a_training_that_fails_leaves_a_failed_run(registry: Registry) -> None:
    with pytest.raises(KeyboardInterrupt), mlflow_curves("risk-train", {}) as curves:
        curves.step({"train/loss": 0.5}, 1)
        raise KeyboardInterrupt
    run = newest_run(registry)
    assert (run.info.status, run.data.metrics) == ("FAILED", {"train/loss": 0.5})


def test_mlflow_that_goes_away_does_not_end_a_training(
    registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(releases.home() / "registry", tmp_path / "copy")
    with mlflow_curves("risk-train", {}, f"sqlite:///{tmp_path}/copy/mlflow.db") as curves:
        shutil.rmtree(tmp_path / "copy")
        for step in range(3 * FLUSH_FIGURES):
            curves.step({"train/loss": 0.5}, step)
    assert [record.message[:45] for record in caplog.records] == ["training goes on without curves in MLflow: mo"]


def test_a_run_that_cannot_be_opened_is_said_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1:9"), mlflow_curves("risk", {}, "http://127.0.0.1:9"):
        pytest.fail("the training was begun")
