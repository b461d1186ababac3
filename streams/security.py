"""From the broker settings to what each Kafka client wants to be told, the same for all of them.

A password or token is read at the moment a client is configured, and shows in no repr, log line or error.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from faust import SASLCredentials, SSLCredentials
from faust.auth import OAuthCredentials

from streams.exits import AccessRefused, BrokerUnavailable
from streams.secrets import SecurityError, password_of
from streams.settings import BrokerSettings
from streams.tokens import TokenSource, token_source

__all__ = ["SecurityError", "aiokafka_config", "faust_credentials", "librdkafka_config", "ssl_context"]


class ClientConfig(dict[str, Any]):
    """A client's configuration that hides passwords when it is printed."""

    def __repr__(self) -> str:
        return repr({key: "***" if "password" in key else value for key, value in self.items()})

    __str__ = __repr__


class _LibrdkafkaTokens:
    """What librdkafka calls, on a thread of its own, whenever the token it has grows old."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def __call__(self, _: str) -> tuple[str, float]:
        token = self._source.token()
        return token.text, token.expires_at_s


class _AiokafkaTokens(AbstractTokenProvider):  # type: ignore[misc]  # a library without types
    """What aiokafka asks at each connection; it tries again after the one error it knows."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def token(self) -> str:
        try:
            return (await asyncio.to_thread(self._source.token)).text
        except (AccessRefused, BrokerUnavailable, SecurityError) as error:
            raise KafkaConnectionError(str(error)) from None


def _aiokafka_tokens(broker: BrokerSettings) -> _AiokafkaTokens:
    source = token_source(broker)
    source.token()
    return _AiokafkaTokens(source)


def _hush_authentication() -> None:
    """At DEBUG aiokafka logs every request as it is, the one with the password too: those lines are dropped."""
    logging.getLogger("aiokafka.conn").addFilter(_tells_no_secret)  # the same filter is added once


def _tells_no_secret(record: logging.LogRecord) -> bool:
    return "SaslAuthenticate" not in record.getMessage()


def librdkafka_config(broker: BrokerSettings) -> dict[str, Any]:
    """What confluent-kafka's clients need to reach the broker; the certificate must carry the broker's host name.

    Raises SecurityError when a file cannot be used; for a token also what `TokenSource.token` raises.
    """
    config = ClientConfig({"bootstrap.servers": broker.bootstrap, "security.protocol": _protocol(broker)})
    if ssl_context(broker):  # built for its checks: librdkafka's own messages do not name the setting
        config |= {"enable.ssl.certificate.verification": True, "ssl.endpoint.identification.algorithm": "https"}
        if broker.ca_file:
            config["ssl.ca.location"] = str(broker.ca_file)
        if broker.cert_file:
            config["ssl.certificate.location"] = str(broker.cert_file)
            config["ssl.key.location"] = str(broker.key_file or broker.cert_file)
    if broker.mechanism == "OAUTHBEARER":
        source = token_source(broker)
        source.token()  # what is wrong with it is said now, in our words; librdkafka would wait for ten seconds
        config |= {"sasl.mechanism": broker.mechanism, "oauth_cb": _LibrdkafkaTokens(source)}
    elif broker.username is not None:
        config["sasl.mechanism"] = broker.mechanism
        config["sasl.username"] = broker.username
        config["sasl.password"] = password_of(broker)
    return config


def aiokafka_config(broker: BrokerSettings) -> dict[str, Any]:
    """What aiokafka's clients need to reach the broker, as keyword arguments.

    Raises SecurityError when a file cannot be used; for a token also what `TokenSource.token` raises.
    """
    config = ClientConfig(
        bootstrap_servers=broker.bootstrap, security_protocol=_protocol(broker), ssl_context=ssl_context(broker)
    )
    if broker.mechanism == "OAUTHBEARER":
        config |= {"sasl_mechanism": broker.mechanism, "sasl_oauth_token_provider": _aiokafka_tokens(broker)}
    elif broker.username is not None:
        config["sasl_mechanism"] = broker.mechanism
        config["sasl_plain_username"] = broker.username
        config["sasl_plain_password"] = password_of(broker)
    _hush_authentication()
    return config


def faust_credentials(broker: BrokerSettings) -> SASLCredentials | OAuthCredentials | SSLCredentials | None:
    """What Faust's `broker_credentials` takes; None is plain text without a user.

    Raises SecurityError when a file cannot be used; for a token also what `TokenSource.token` raises.
    """
    context = ssl_context(broker)
    _hush_authentication()
    if broker.mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=_aiokafka_tokens(broker), ssl_context=context)
    if broker.username is not None:
        return SASLCredentials(
            username=broker.username, password=password_of(broker), ssl_context=context, mechanism=broker.mechanism
        )
    # Always with a context of ours: the one Faust would make has no purpose and raises.
    return SSLCredentials(context) if context else None


def ssl_context(broker: BrokerSettings) -> ssl.SSLContext | None:
    """A context that verifies the broker's certificate and host name, with the client's certificate if there is one.

    None without `tls`. Raises SecurityError naming the setting and the file that cannot be used.
    """
    if broker.key_file and not broker.cert_file:
        raise SecurityError("broker.key_file needs broker.cert_file: give the certificate that belongs to the key")
    if not broker.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=str(broker.ca_file) if broker.ca_file else None)
    except OSError as error:
        raise _unusable("broker.ca_file", broker.ca_file, error, "PEM certificates") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.cert_file:
        try:
            # An empty pass phrase: without one OpenSSL would ask on the terminal and the worker would hang.
            context.load_cert_chain(broker.cert_file, broker.key_file, password=lambda: b"")
        except OSError as error:
            name = "broker.cert_file and broker.key_file" if broker.key_file else "broker.cert_file"
            wanted = "a PEM certificate chain and its private key without a pass phrase"
            raise _unusable(name, broker.cert_file, error, wanted, broker.key_file) from None
    return context


def _unusable(setting: str, path: Path | None, error: OSError, wanted: str, other: Path | None = None) -> SecurityError:
    files = " and ".join(str(file) for file in (path, other) if file)
    return SecurityError(f"{setting}: {files} cannot be used ({error.strerror or error}); it must hold {wanted}")


def _protocol(broker: BrokerSettings) -> str:
    if not broker.authenticates:
        return "SSL" if broker.tls else "PLAINTEXT"
    return "SASL_SSL" if broker.tls else "SASL_PLAINTEXT"
