import logging
from pathlib import Path

import pytest

from models.errors import MissingExtra, RegistryRefused, RegistryUnavailable
from models.tracking import chosen_address, cleaned, configured, open_client, plain_errors, shown


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "home"


def test_the_address_is_what_is_said_last(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not configured()
    assert chosen_address() == f"sqlite:///{home}/registry/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.com")
    assert configured()
    assert chosen_address() == "https://mlflow.example.com"
    assert chosen_address("http://127.0.0.1:5000") == "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("https://me:hunter22@mlflow.example.com:5000/a?token=t0ken", "https://mlflow.example.com:5000/a"),
        ("postgresql://me:p%40ss@db/mlflow", "postgresql://db/mlflow"),
        ("http://[", "(an address that cannot be read)"),
    ],
)
def test_an_address_is_shown_without_credentials(address: str, expected: str) -> None:
    assert shown(address) == expected


def test_messages_lose_every_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-1234567")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-98765")
    message = (
        "GET https://me:p%40ss@db/x failed: p@ss, p%40ss,\n Bearer tok-1234567, key aws-98765; user:other@elsewhere"
    )
    said = cleaned(message + " at http://someone:else@host/", "postgresql://me:p%40ss@db/mlflow")
    for secret in ("p@ss", "p%40ss", "tok-1234567", "aws-98765", "else@"):
        assert secret not in said
    assert "failed" in said
    assert "\n" not in said


class Coded(Exception):
    def __init__(self, message: str, error_code: str) -> None:
        super().__init__(message)
        self.error_code = error_code


def test_failures_below_say_where_and_hide_what_is_secret() -> None:
    address = "https://me:hunter22@mlflow.example.com"
    with pytest.raises(
        RegistryUnavailable, match=r"registry https://mlflow\.example\.com: boom \*\*\*; check"
    ) as found:
        with plain_errors(address):
            raise ValueError("boom hunter22")
    assert found.value.__suppress_context__
    with pytest.raises(RegistryRefused, match="who are you"), plain_errors(address):
        raise Coded("who are you", "UNAUTHENTICATED")
    with pytest.raises(MissingExtra, match=r'pip install "streamgauge\[registry\]"'), plain_errors(address):
        raise ModuleNotFoundError("No module named 'mlflow'")


def test_a_server_that_is_away_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = "http://me:hunter22@127.0.0.1:9"
    client = open_client(address)
    with pytest.raises(RegistryUnavailable, match=r"registry http://127\.0\.0\.1:9: .*MLFLOW_TRACKING_URI") as found:
        with plain_errors(address):
            client.search_registered_models()
    assert "hunter22" not in str(found.value)


def test_mlflow_sends_no_telemetry_and_logs_nothing() -> None:
    open_client("http://127.0.0.1:9")
    from mlflow.telemetry import get_telemetry_client
    from mlflow.telemetry.utils import MLFLOW_DISABLE_TELEMETRY

    assert MLFLOW_DISABLE_TELEMETRY.get() is True
    assert get_telemetry_client() is None
    assert logging.getLogger("mlflow").level == logging.CRITICAL
