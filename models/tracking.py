"""Where MLflow is and how it is asked: without telemetry, without its log, and with no credential in any message.

The address is what the caller names, else `$MLFLOW_TRACKING_URI`, else a SQLite file under `releases.home()` with the
artefacts beside it. User name, password, token and certificates are MLflow's own `$MLFLOW_TRACKING_*`.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from models.errors import (
    REGISTRY_EXTRA,
    MissingExtra,
    ModelError,
    RegistryRefused,
    RegistryUnavailable,
    ReleaseNotFound,
)
from models.releases import home

if TYPE_CHECKING:
    from mlflow import MlflowClient

ADDRESS = "MLFLOW_TRACKING_URI"
EXPERIMENT = "streamgauge"

_SQLITE = "sqlite:///"
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}  # its own: 7 and 120 s
_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY|API_KEY", re.IGNORECASE)
_SHORTEST_SECRET = 4  # characters; what is shorter would cut ordinary words out of messages
_MAX_MESSAGE_CHARS = 600
_REFUSED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_PARAMETER_VALUE", "BAD_REQUEST"}


def configured() -> bool:
    """Whether somebody has said where MLflow is."""
    return bool(os.environ.get(ADDRESS))


def chosen_address(given: str | None = None) -> str:
    """MLflow's address as a URI; with nothing said, the one on this machine."""
    return given or os.environ.get(ADDRESS) or f"{_SQLITE}{home().absolute() / 'registry' / 'mlflow.db'}"


def open_client(address: str) -> "MlflowClient":
    """MLflow's client for tracking and registry; a SQLite file is made when it is not there.

    Raises MissingExtra, RegistryUnavailable, RegistryRefused.
    """
    os.environ.update(_QUIET)  # read when mlflow is imported
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    if folder := _sqlite_folder(address):
        folder.mkdir(parents=True, exist_ok=True)
    with plain_errors(address):
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # what matters comes as an exception, and is cleaned
        logging.getLogger("alembic").setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=address, registry_uri=address)


def experiment_id(client: "MlflowClient", address: str) -> str:
    """The experiment that all runs of Streamgauge belong to, made when it is not there."""
    with plain_errors(address):
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        folder = _sqlite_folder(address)  # MLflow's own default is a folder of the working directory
        made = client.create_experiment(
            EXPERIMENT, artifact_location=(folder / "artifacts").as_uri() if folder else None
        )
        return str(made)


@contextmanager
def plain_errors(address: str) -> Iterator[None]:
    """Whatever MLflow and the libraries below it raise, as one of ours, without credentials and without a traceback."""
    try:
        yield
    except ModelError:
        raise
    except ImportError as error:
        raise MissingExtra(f"the model registry needs the registry extra: {REGISTRY_EXTRA} ({error})") from None
    except Exception as error:
        code = getattr(error, "error_code", None)
        message = f"model registry {shown(address)}: {cleaned(str(error), address)}"
        if code == "RESOURCE_DOES_NOT_EXIST" or isinstance(error, FileNotFoundError):
            raise ReleaseNotFound(message) from None
        if code in _REFUSED:
            raise RegistryRefused(message) from None
        raise RegistryUnavailable(f"{message}; check {ADDRESS} and that it runs") from None


def shown(address: str) -> str:
    """An address as it may be shown: without user, password and parameters."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "(an address that cannot be read)"
    if parts.scheme == "sqlite":
        return address.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def cleaned(message: str, address: str) -> str:
    """A message on one line, cut to a bearable length, without any credential of the address or the environment."""
    for secret in sorted(_secrets(address), key=len, reverse=True):
        message = message.replace(secret, "***")
    message = re.sub(r"://[^/@\s]+@", "://***@", message)
    return " ".join(message.split())[:_MAX_MESSAGE_CHARS]


def _secrets(address: str) -> set[str]:
    found = {value for name, value in os.environ.items() if _SECRET.search(name)}
    try:
        password = urlsplit(address).password or ""
    except ValueError:
        password = ""
    return {one for one in found | {password, unquote(password)} if len(one) >= _SHORTEST_SECRET}


def _sqlite_folder(address: str) -> Path | None:
    """Where a SQLite file lies; None for any other store."""
    if not address.startswith(_SQLITE):
        return None
    return Path(address.removeprefix(_SQLITE).partition("?")[0]).absolute().parent
