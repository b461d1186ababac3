"""From the broker settings to what each Kafka client wants to be told: the only place that handles credentials.

A password is read at the moment a client is configured, and shows in no repr, log line or error.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from faust import SASLCredentials, SSLCredentials

from streams.settings import BrokerSettings

MAX_PASSWORD_BYTES = 64 * 1024  # a password file that is larger is the wrong file


class SecurityError(ValueError):
    """Credentials or certificates that cannot be used; the message names the setting or the file, never a secret."""


class ClientConfig(dict[str, Any]):
    """A client's configuration that hides passwords when it is printed."""

    def __repr__(self) -> str:
        return repr({key: "***" if "password" in key else value for key, value in self.items()})

    __str__ = __repr__


def librdkafka_config(broker: BrokerSettings) -> dict[str, Any]:
    """What confluent-kafka's clients need to reach the broker; the certificate must carry the broker's host name.

    Raises SecurityError when a password or certificate file cannot be used.
    """
    config = ClientConfig({"bootstrap.servers": broker.bootstrap, "security.protocol": _protocol(broker)})
    if ssl_context(broker):  # built for its checks: librdkafka's own messages do not name the setting
        config |= {"enable.ssl.certificate.verification": True, "ssl.endpoint.identification.algorithm": "https"}
        if broker.ca_file:
            config["ssl.ca.location"] = str(broker.ca_file)
        if broker.cert_file:
            config["ssl.certificate.location"] = str(broker.cert_file)
            config["ssl.key.location"] = str(broker.key_file or broker.cert_file)
    if broker.username is not None:
        config["sasl.mechanism"] = broker.mechanism
        config["sasl.username"] = broker.username
        config["sasl.password"] = _password(broker)
    return config


def aiokafka_config(broker: BrokerSettings) -> dict[str, Any]:
    """What aiokafka's clients need to reach the broker, as keyword arguments.

    Raises SecurityError when a password or certificate file cannot be used.
    """
    config = ClientConfig(
        bootstrap_servers=broker.bootstrap, security_protocol=_protocol(broker), ssl_context=ssl_context(broker)
    )
    if broker.username is not None:
        config["sasl_mechanism"] = broker.mechanism
        config["sasl_plain_username"] = broker.username
        config["sasl_plain_password"] = _password(broker)
    return config


def faust_credentials(broker: BrokerSettings) -> SASLCredentials | SSLCredentials | None:
    """What Faust's `broker_credentials` takes; None is plain text without a user.

    Raises SecurityError when a password or certificate file cannot be used.
    """
    context = ssl_context(broker)
    if broker.username is not None:
        return SASLCredentials(
            username=broker.username, password=_password(broker), ssl_context=context, mechanism=broker.mechanism
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
    if broker.username is None:
        return "SSL" if broker.tls else "PLAINTEXT"
    return "SASL_SSL" if broker.tls else "SASL_PLAINTEXT"


def _password(broker: BrokerSettings) -> str:
    if broker.password is not None:
        return broker.password.get_secret_value()
    path = broker.password_file
    if path is None:
        raise SecurityError("broker.username needs broker.password or broker.password_file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PASSWORD_BYTES + 1)
        if len(content) > MAX_PASSWORD_BYTES:
            raise SecurityError(f"broker.password_file: {path} is larger than {MAX_PASSWORD_BYTES} bytes")
        password = content.decode("utf-8").strip()
    except OSError as error:
        raise SecurityError(
            f"broker.password_file: {path} cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    except UnicodeDecodeError:
        raise SecurityError(f"broker.password_file: {path} is not UTF-8 text") from None
    if not password:
        raise SecurityError(f"broker.password_file: {path} is empty; put the password into it")
    return password
