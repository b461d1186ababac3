from __future__ import annotations

import asyncio
import logging
import re
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import SaslAuthenticateRequest
from confluent_kafka import Producer
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from pydantic import SecretStr, ValidationError

from streams.checks import run_checks
from streams.exits import BrokerUnavailable
from streams.security import SecurityError, aiokafka_config, faust_credentials, librdkafka_config, ssl_context
from streams.settings import BrokerSettings, load_settings
from streams.topics import connect
from tests.streams.fakes import jwt

SECRET = "correct-horse-battery"  # noqa: S105
SHIPPED = load_settings(env={}).broker


def broker(**changes: object) -> BrokerSettings:
    return BrokerSettings.model_validate(SHIPPED.model_dump() | changes)


def with_user(**changes: object) -> BrokerSettings:
    return broker(**({"tls": True, "username": "desk", "password": SecretStr(SECRET)} | changes))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/CN=localhost", "-days", "2", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    return cert, key


def test_plain_text_without_a_user() -> None:
    assert librdkafka_config(SHIPPED) == {"bootstrap.servers": "localhost:9092", "security.protocol": "PLAINTEXT"}
    assert faust_credentials(SHIPPED) is None
    assert ssl_context(SHIPPED) is None
    assert aiokafka_config(SHIPPED)["ssl_context"] is None


def test_tls_checks_certificate_and_host_name() -> None:
    settings = broker(tls=True)
    config = librdkafka_config(settings)
    assert config["security.protocol"] == "SSL"
    assert config["ssl.endpoint.identification.algorithm"] == "https"
    assert config["enable.ssl.certificate.verification"] is True
    context = ssl_context(settings)
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    faust_auth = credentials_to_aiokafka_auth(faust_credentials(settings))
    assert faust_auth["security_protocol"] == "SSL"
    assert faust_auth["ssl_context"].check_hostname


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_every_client_gets_the_user(mechanism: str) -> None:
    settings = with_user(mechanism=mechanism)
    assert librdkafka_config(settings)["security.protocol"] == "SASL_SSL"
    assert librdkafka_config(settings)["sasl.mechanism"] == mechanism
    assert librdkafka_config(settings)["sasl.password"] == SECRET
    for auth in (aiokafka_config(settings), credentials_to_aiokafka_auth(faust_credentials(settings))):
        assert auth["security_protocol"] == "SASL_SSL"
        assert auth["sasl_mechanism"] == mechanism
        assert auth["sasl_plain_username"] == "desk"
        assert auth["sasl_plain_password"] == SECRET
        assert auth["ssl_context"].check_hostname


OAUTH = {"tls": True, "mechanism": "OAUTHBEARER"}
ENDPOINT = {"token_url": "https://login.test/token", "username": "desk", "password": SecretStr(SECRET)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (OAUTH, "needs exactly one of token_file and token_url"),
        (OAUTH | ENDPOINT | {"token_file": "/t"}, "needs exactly one of token_file and token_url"),
        (OAUTH | {"token_file": "/t", "username": "desk", "password": "x"}, "leave username and its password out"),
        (OAUTH | {"token_url": "https://login.test/token"}, "token_url needs username and password"),
        (OAUTH | ENDPOINT | {"token_url": "http://login.test/token"}, "give an https:// address"),
        (OAUTH | {"token_url": "https://desk:word@login.test/token"}, "token_url"),
        (OAUTH | {"token_url": "file:///etc/passwd"}, "token_url"),
        (OAUTH | {"token_file": "/t", "tls": False}, "set tls = true, or allow_plaintext_credentials"),
        ({"token_file": "/t"}, 'token_file needs mechanism = "OAUTHBEARER"'),
        ({"mechanism": "PLAIN", "username": "desk", "password": "x"}, "username without tls"),
        ({"mechanism": "GSSAPI"}, "'PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512' or 'OAUTHBEARER'"),
    ],
)
def test_half_a_way_in_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        broker(**given)


def test_a_token_serves_both_clients(tmp_path: Path) -> None:
    path = tmp_path / "token"
    settings = broker(**OAUTH, token_file=path)
    path.write_text("the-first-token")
    config, auth = librdkafka_config(settings), credentials_to_aiokafka_auth(faust_credentials(settings))
    path.write_text("a-renewed-token")
    assert config["security.protocol"] == auth["security_protocol"] == "SASL_SSL"
    assert config["sasl.mechanism"] == auth["sasl_mechanism"] == "OAUTHBEARER"
    assert config["oauth_cb"]("")[0] == "a-renewed-token"
    assert asyncio.run(auth["sasl_oauth_token_provider"].token()) == "a-renewed-token"
    assert auth["ssl_context"].check_hostname
    shown = f"{config!r} {auth!r} {faust_credentials(settings)!r}"
    assert "renewed" not in shown and "first" not in shown


def test_a_token_that_cannot_be_had_later_is_tried_again_by_aiokafka(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(jwt(exp=time.time() + 1))
    provider = aiokafka_config(broker(**OAUTH, token_file=path))["sasl_oauth_token_provider"]
    path.unlink()

    async def until_it_fails() -> None:
        while True:
            await provider.token()
            await asyncio.sleep(0.01)

    with pytest.raises(KafkaConnectionError, match=r"broker\.token_file"):
        asyncio.run(until_it_fails())
    assert KafkaConnectionError.retriable


def test_aiokafka_logs_no_authentication(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG it logs requests as they are: this one holds the password."""
    caplog.set_level(logging.DEBUG)
    aiokafka_config(with_user())
    log = logging.getLogger("aiokafka.conn")
    request = SaslAuthenticateRequest(f"\0desk\0{SECRET}".encode()).prepare({36: (0, 1)})
    log.debug("Request to %s:%d %d: %s", "localhost", 9092, 1, request)
    log.debug("Request to %s:%d %d: %s", "localhost", 9092, 1, "MetadataRequest")
    assert "MetadataRequest" in caplog.text
    assert SECRET not in caplog.text


def test_without_tls_only_when_allowed() -> None:
    settings = with_user(tls=False, allow_plaintext_credentials=True)
    assert librdkafka_config(settings)["security.protocol"] == "SASL_PLAINTEXT"
    assert aiokafka_config(settings)["security_protocol"] == "SASL_PLAINTEXT"


async def test_the_clients_accept_what_they_are_given(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    settings = with_user(bootstrap="127.0.0.1:1", ca_file=cert, cert_file=cert, key_file=key)
    Producer(librdkafka_config(settings) | {"log_level": 0})
    await AIOKafkaProducer(**aiokafka_config(settings)).stop()


def test_password_file_is_read_at_use_and_stripped(tmp_path: Path) -> None:
    path = tmp_path / "password"
    settings = with_user(password=None, password_file=path)
    for password in ("first", "second"):
        path.write_text(f"{password}\n")
        assert librdkafka_config(settings)["sasl.password"] == password


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe", b"x" * 70_000])
def test_a_useless_password_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SecurityError, match=r"broker\.password_file: .*password"):
        librdkafka_config(with_user(password=None, password_file=path))


@pytest.mark.parametrize("setting", ["ca_file", "cert_file"])
@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_useless_certificate_is_named(tmp_path: Path, setting: str, content: str | None) -> None:
    path = tmp_path / "some.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SecurityError, match=rf"broker\.{setting}: .*some\.pem"):
        librdkafka_config(broker(tls=True, **{setting: path}))


def test_a_key_with_a_pass_phrase_is_refused_without_asking(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    locked = tmp_path / "locked.pem"
    options = ["-aes256", "-passout", "pass:phrase", "-in", str(key), "-out", str(locked)]
    subprocess.run(["openssl", "ec", *options], check=True, capture_output=True)
    with pytest.raises(SecurityError, match=r"locked\.pem.*without a pass phrase"):
        ssl_context(broker(tls=True, cert_file=cert, key_file=locked))


def test_a_key_without_its_certificate_is_refused(certificate: tuple[Path, Path]) -> None:
    with pytest.raises(SecurityError, match=r"broker\.key_file needs broker\.cert_file"):
        ssl_context(broker(tls=True, key_file=certificate[1]))


def test_no_password_in_repr_log_or_error(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    settings = with_user(bootstrap="127.0.0.1:1")
    whole = load_settings(env={}).model_copy(update={"broker": settings})
    with pytest.raises(BrokerUnavailable) as caught:
        connect(whole, timeout_s=0.2)
    shown = [
        f"{thing!r} {thing}"
        for thing in (
            settings,
            whole,
            librdkafka_config(settings),
            aiokafka_config(settings),
            faust_credentials(settings),
            caught.value,
            run_checks(whole),
        )
    ]
    output = capfd.readouterr()
    assert not [text for text in (*shown, caplog.text, output.out, output.err) if SECRET in text]
