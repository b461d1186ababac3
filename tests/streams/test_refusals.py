from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import errors as aiokafka
from confluent_kafka import KafkaError

from streams.exits import AccessRefused
from streams.refusals import connection_refusal, not_allowed, refusal_in, who
from streams.settings import BrokerSettings, load_settings
from tests.kafka.secured import Authority

SHIPPED = load_settings(env={}).broker


def broker(**changes: object) -> BrokerSettings:
    return BrokerSettings.model_validate(SHIPPED.model_dump() | changes)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@contextlib.contextmanager
def listener(context: ssl.SSLContext | None) -> Iterator[int]:
    """Takes connections on loopback; with a context it speaks TLS, without it closes them. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        if context:
                            with context.wrap_socket(connection, server_side=True) as secured:
                                secured.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def context_of(authority: Authority, *, wants_certificate: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("broker", ("localhost",)))
    if wants_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.file)
    return context


def explained(settings: BrokerSettings) -> str:
    refusal = connection_refusal(settings, [])
    return str(refusal) if refusal else "none"


def test_what_is_wrong_with_tls_is_told_apart(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    with listener(context_of(authority)) as port:
        there = {"bootstrap": f"localhost:{port}", "tls": True}
        assert explained(broker(**there, ca_file=authority.file)) == "none"
        wrong = explained(broker(**there, ca_file=stranger.file))
        assert re.search(rf"broker\.ca_file: .*localhost:{port} is not trusted by {stranger.file}", wrong)
        assert "is not trusted by the system's authorities" in explained(broker(**there))
        elsewhere = broker(bootstrap=f"127.0.0.1:{port}", tls=True, ca_file=authority.file)
        assert f"the certificate of 127.0.0.1:{port} is not for this host" in explained(elsewhere)
        assert "speaks TLS; set broker.tls = true" in explained(broker(bootstrap=f"localhost:{port}"))


def test_a_client_certificate_that_is_wanted_or_refused_is_named(authority: Authority, tmp_path: Path) -> None:
    with listener(context_of(authority, wants_certificate=True)) as port:
        there = {"bootstrap": f"localhost:{port}", "tls": True, "ca_file": authority.file}
        assert explained(broker(**there, cert_file=authority.issue("desk"))) == "none"
        assert f"broker.cert_file: localhost:{port} wants a client certificate" in explained(broker(**there))
        foreign = Authority(tmp_path, "stranger").issue("desk")
        assert f"refuses the client certificate {foreign}" in explained(broker(**there, cert_file=foreign))


@pytest.mark.parametrize("tls", [True, False])
def test_a_connection_that_only_closes_is_no_refusal(authority: Authority, tls: bool) -> None:
    """A broker that ends does that, and so does a balancer without one: it may pass."""
    with listener(None) as port:
        assert explained(broker(bootstrap=f"localhost:{port}", tls=tls, ca_file=authority.file)) == "none"
    assert explained(broker(bootstrap=f"localhost:{port}", tls=tls, ca_file=authority.file)) == "none"


@pytest.mark.parametrize(
    ("settings", "todo"),
    [
        ({"username": "desk", "password": "x"}, "check broker.username, broker.password and broker.mechanism"),
        ({"username": "desk", "password_file": "/p"}, "check broker.username, broker.password_file /p and"),
        ({"mechanism": "OAUTHBEARER", "token_file": "/t"}, "the token in /t .*check its issuer"),
    ],
)
def test_a_refused_user_is_named_with_what_to_check(settings: dict[str, object], todo: str) -> None:
    met = [KafkaError(KafkaError._TRANSPORT), KafkaError(KafkaError._AUTHENTICATION, "sasl_ssl://k/1: no such user")]
    found = connection_refusal(broker(tls=True, **settings), met)
    assert re.search(rf"localhost:9092 refuses .*\(no such user\); .*{todo}|refuses {todo}", str(found))


def test_a_mechanism_the_broker_does_not_have_is_said() -> None:
    met = [
        KafkaError(KafkaError._AUTHENTICATION, "k: Unsupported SASL mechanism: broker's supported mechanisms: PLAIN")
    ]
    found = str(connection_refusal(broker(tls=True, username="desk", password="x"), met))
    assert "supported mechanisms: PLAIN); set broker.mechanism to one that the broker has" in found


def test_who_is_what_the_broker_sees() -> None:
    assert who(broker(tls=True, username="desk", password="x")) == "user 'desk' by SCRAM-SHA-512"
    assert who(broker(tls=True, cert_file="/c.pem")) == "the client certificate /c.pem"
    assert "User:ANONYMOUS" in who(broker(tls=True))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (aiokafka.TopicAuthorizationFailedError("news"), "not allowed to READ the topic 'news'"),
        (aiokafka.TopicAuthorizationFailedError({"news", "chat"}), "not allowed to READ the topic 'chat,news'"),
        (aiokafka.GroupAuthorizationFailedError("g"), "not allowed to READ the group 'streamgauge'"),
        (aiokafka.SaslAuthenticationFailed("bad user"), "refuses a client without a name"),
    ],
)
def test_what_aiokafka_is_refused_is_one_message(error: Exception, said: str) -> None:
    outer = RuntimeError("the fetcher crashed")
    outer.__cause__ = error
    found = refusal_in(outer, SHIPPED)
    assert isinstance(found, AccessRefused)
    assert said in str(found)


def test_a_missing_right_comes_with_the_line_that_gives_it() -> None:
    text = str(not_allowed("user 'desk'", "Write", "topic", "alerts"))
    assert "kafka-acls.sh --add --allow-principal User:NAME --operation Write --topic alerts" in text
    assert "--cluster" in str(not_allowed("user 'desk'", "Create", "cluster", "kafka-cluster"))
