"""When the broker and we do not get on: one clear message that names what was refused to whom, and what to do.

A TLS failure is looked at with a handshake of our own, because the clients do not say whether the authority or the host
name was wrong.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence

from aiokafka import errors as aiokafka
from confluent_kafka import KafkaError, KafkaException

from streams.exits import AccessRefused, BrokerUnavailable
from streams.security import ssl_context
from streams.settings import BrokerSettings

HANDSHAKE_TIMEOUT_S = 3.0
_ALERT_WAIT_S = 0.5  # in TLS 1.3 the broker's view of our certificate comes after the handshake
_IDENTITY = {
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
}  # fmt: skip
_ACCESS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}  # fmt: skip


def who(broker: BrokerSettings) -> str:
    """Who we say we are, as far as the settings tell."""
    if broker.token_file is not None:
        return f"the token in {broker.token_file} (broker.token_file)"
    if broker.username is not None:
        return f"user {broker.username!r} by {broker.mechanism}"
    if broker.tls and broker.cert_file:
        return f"the client certificate {broker.cert_file}"
    return "a client without a name (User:ANONYMOUS)"


def connection_refusal(broker: BrokerSettings, met: Sequence[KafkaError]) -> AccessRefused | None:
    """Why no connection came about, if it is not that nobody answers.

    Args:
        broker: where and as whom.
        met: what librdkafka's error callback was given.
    """
    for error in met:
        if error.code() in _IDENTITY:
            return _identity_refused(broker, error.str())
    for address in broker.bootstrap.split(","):
        host, port = address.rsplit(":", 1)
        if why := _handshake(broker, host.strip("[]"), int(port)):
            return AccessRefused(why)
    return None


def _identity_refused(broker: BrokerSettings, said: str) -> AccessRefused:
    said = said.partition(": ")[2] or said  # without librdkafka's name of the broker
    secret = f"broker.password_file {broker.password_file}" if broker.password_file else "broker.password"
    if "mechanism" in said and "upported" in said:
        todo = "set broker.mechanism to one that the broker has"
    elif broker.mechanism == "OAUTHBEARER":
        todo = "check its issuer, its audience and its scope, and that it has not expired"
    else:
        todo = f"check broker.username, {secret} and broker.mechanism"
    return AccessRefused(f"broker.mechanism: {broker.bootstrap} refuses {who(broker)} ({said}); {todo}")


def _handshake(broker: BrokerSettings, host: str, port: int) -> str | None:
    """What is wrong with TLS at one address; None when nothing is, or nobody answers."""
    context = ssl_context(broker)
    if context is None:
        return _expects_tls(host, port)
    where = f"{host}:{port}"
    try:
        with (
            socket.create_connection((host, port), HANDSHAKE_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            secured.settimeout(_ALERT_WAIT_S)
            secured.recv(1)  # a broker says nothing unasked, but for an alert
    except ssl.SSLCertVerificationError as error:
        if "match" in error.verify_message:  # "Hostname mismatch, ...", "IP address mismatch, ..."
            return (
                f"broker.bootstrap: the certificate of {where} is not for this host ({error.verify_message}); use a "
                "name that is in the certificate, or have it made anew with this one"
            )
        trusted = str(broker.ca_file or "the system's authorities")
        return (
            f"broker.ca_file: the certificate of {where} is not trusted by {trusted} ({error.verify_message}); name "
            "the file with the certificate of the authority that signed it"
        )
    except (TimeoutError, ssl.SSLEOFError):
        return None  # a broker that ends, or a balancer without one, closes the connection too: that may pass
    except ssl.SSLError as error:
        return _alert(broker, where, error)
    except OSError:
        return None
    return None


def _alert(broker: BrokerSettings, where: str, error: ssl.SSLError) -> str:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "wrong version" in reason or "record layer" in reason:
        return f"broker.tls: {where} does not speak TLS; use the broker's TLS port, or set broker.tls = false"
    if "certificate" in reason or "unknown ca" in reason:  # what OpenSSL and Java call it
        if broker.cert_file is None:
            return f"broker.cert_file: {where} wants a client certificate ({reason}); give it, and broker.key_file"
        return (
            f"broker.cert_file: {where} refuses the client certificate {broker.cert_file} ({reason}); use one that an "
            "authority which the broker trusts has signed"
        )
    return f"broker.tls: no TLS connection to {where} ({reason}); see the broker's log"


def _expects_tls(host: str, port: int) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # nothing is sent over it: it only sees whether TLS is spoken
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), HANDSHAKE_TIMEOUT_S) as plain, context.wrap_socket(plain):
            return f"broker.tls: {host}:{port} speaks TLS; set broker.tls = true (and broker.ca_file)"
    except OSError:
        return None


def not_allowed(name: str, operation: str, kind: str, resource: str) -> AccessRefused:
    """The message for one thing that the broker does not allow.

    Args:
        name: who we are to the broker, as `who` words it.
        operation: as Kafka's ACLs call it: Read, Write, Describe, ...
        kind: topic, group, cluster or transactional-id.
        resource: its name.
    """
    option = "--cluster" if kind == "cluster" else f"--{kind} {resource}"
    if kind == "transactional-id":
        option += " --resource-pattern-type prefixed"  # one for each partition
    return AccessRefused(
        f"{name} is not allowed to {operation.upper()} the {kind} {resource!r}; have it allowed: kafka-acls.sh --add "
        f"--allow-principal User:NAME --operation {operation} {option} (all that is needed: streamgauge acls)"
    )


def refusal_in(error: BaseException | None, broker: BrokerSettings) -> AccessRefused | BrokerUnavailable | None:
    """What an error of a client, or one of its causes, says of access; None when it is about something else."""
    for one in _causes(error):
        if isinstance(one, AccessRefused | BrokerUnavailable):
            return one
        if isinstance(one, KafkaException) and one.args and isinstance(one.args[0], KafkaError):
            if found := _of_librdkafka(one.args[0], broker):
                return found
        elif isinstance(one, aiokafka.KafkaError) and (found := _of_aiokafka(one, broker)):
            return found
    return None


def _of_librdkafka(error: KafkaError, broker: BrokerSettings) -> AccessRefused | None:
    if error.code() in _IDENTITY:
        return _identity_refused(broker, error.str())
    if error.code() in _ACCESS:
        return AccessRefused(
            f"{broker.bootstrap} refuses {who(broker)} ({error.str()}); `streamgauge check` names what is not allowed"
        )
    return None


def _of_aiokafka(error: aiokafka.KafkaError, broker: BrokerSettings) -> AccessRefused | None:
    if isinstance(error, aiokafka.TopicAuthorizationFailedError):
        named = error.args[0] if error.args else ""
        topics = sorted(map(str, named)) if isinstance(named, set | frozenset | list) else [str(named)]
        return not_allowed(who(broker), "Read", "topic", ",".join(topics))
    if isinstance(error, aiokafka.GroupAuthorizationFailedError):
        return not_allowed(who(broker), "Read", "group", broker.group)
    if isinstance(error, aiokafka.SaslAuthenticationFailed | aiokafka.UnsupportedSaslMechanismError):
        return _identity_refused(broker, str(error))
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
