"""Training curves in MLflow: a run of its own for each training, its figures beside those of others.

MLflow that fails is no reason to lose a training: it is said once, and the figures that follow stay here.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from models.curves import Curves
from models.errors import ModelError
from models.tracking import chosen_address, experiment_id, open_client, plain_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

FLUSH_FIGURES = 500  # so many in one request; MLflow takes 1,000
FLUSH_S = 5.0  # figures are seen so long after they were made, at most, while training goes on
MAX_PARAM_CHARS = 250  # what every server takes

log = logging.getLogger(__name__)


@contextmanager
def mlflow_curves(
    run_name: str, params: Mapping[str, str | float | int | bool | None], address: str | None = None
) -> Iterator[Curves]:
    """A run at `address` (see `tracking`) that takes figures; it is closed as finished, or as failed by an exception.

    Raises MissingExtra, RegistryRefused, RegistryUnavailable when the run cannot be opened; nothing after that.
    """
    address = chosen_address(address)
    client = open_client(address)
    with plain_errors(address):
        from mlflow.entities import Param

        run = client.create_run(experiment_id(client, address), run_name=run_name)
        given = [Param(name, str(value)[:MAX_PARAM_CHARS]) for name, value in params.items() if value is not None]
        client.log_batch(run.info.run_id, params=given)
    curves, state = _MlflowCurves(client, address, run.info.run_id), "FAILED"
    try:
        yield curves
        state = "FINISHED"
    finally:
        curves.close(state)


class _MlflowCurves:
    """Figures of one run, sent in batches: a request for each step would cost more than the step."""

    def __init__(self, client: "MlflowClient", address: str, run_id: str) -> None:
        self._client, self._address, self._run_id = client, address, run_id
        self._waiting: list[Metric] = []
        self._flushed_s = time.monotonic()
        self._lost = False

    def step(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        at_ms = int(time.time() * 1000)
        self._waiting += [Metric(name, float(value), at_ms, step) for name, value in values.items()]
        if len(self._waiting) >= FLUSH_FIGURES or time.monotonic() - self._flushed_s >= FLUSH_S:
            self._flush()

    def close(self, state: str) -> None:
        self._flush()
        if not self._lost:
            with _said_once(self, self._address):
                self._client.set_terminated(self._run_id, state)

    def lose(self, error: ModelError) -> None:
        self._lost = True
        log.warning("training goes on without curves in MLflow: %s", error)

    def _flush(self) -> None:
        figures, self._waiting = self._waiting, []
        self._flushed_s = time.monotonic()
        for start in range(0, 0 if self._lost else len(figures), FLUSH_FIGURES):
            with _said_once(self, self._address):
                self._client.log_batch(self._run_id, metrics=figures[start : start + FLUSH_FIGURES])


@contextmanager
def _said_once(curves: _MlflowCurves, address: str) -> Iterator[None]:
    try:
        with plain_errors(address):
            yield
    except ModelError as error:
        curves.lose(error)
