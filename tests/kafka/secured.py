"""A Kafka with every way in that a client may have to use, certificates and tokens of the tests' own.

One broker with StandardAuthorizer; on its plain listener everybody may do everything (the tests' own look at topics),
on the others a client is who its certificate, password or token says, and may do what its ACLs say:

    MTLS    TLS, a client certificate is required        SASL    TLS; PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER
    TLS     TLS alone: everybody is ANONYMOUS             REAUTH  as SASL; the broker cuts a session after REAUTH_MS
    CLEAR   SASL without TLS
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import ssl
import threading
import time
import tomllib
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but exported without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from streams.broker import KafkaBroker
from streams.children import free_ports
from streams.grants import OPERATIONS, Grant
from streams.settings import Settings, load_settings

LISTENERS = ("MTLS", "TLS", "SASL", "REAUTH", "CLEAR")
USER, PASSWORD = "desk", "correct-horse-battery-staple"
CLIENT_SECRET = "a-client-secret-of-the-token-endpoint"  # noqa: S105 - made up
REAUTH_MS = 4000
AUDIENCE, ISSUER, KEY_ID = "kafka", "https://issuer.test", "tests"
_LOGIN = "org.apache.kafka.common.security"


@dataclass
class Authority:
    """A certificate authority that signs certificates of EC keys."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def file(self) -> Path:
        """Its own certificate."""
        path = self.folder / f"{self.name}.pem"
        if not path.exists():
            path.write_bytes(_pem(_certificate(self.name, self.key, self.name, self.key, is_authority=True)))
        return path

    def issue(self, name: str, hosts: tuple[str, ...] = ()) -> Path:
        """A file with a private key and its certificate, for the common name and host names."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = self.folder / f"{name}-by-{self.name}.pem"
        path.write_bytes(_key_pem(key) + _pem(_certificate(name, key, self.name, self.key, hosts)))
        path.chmod(0o600)
        return path


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    hosts: tuple[str, ...] = (),
    *,
    is_authority: bool = False,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    subject, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, issuer))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if is_authority:
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    if hosts:
        names = [x509.IPAddress(ipaddress.ip_address(h)) if h[0].isdigit() else x509.DNSName(h) for h in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class TokenIssuer:
    """Signs tokens the broker accepts; its public key lies in a file."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        numbers = self._key.public_key().public_numbers()
        jwk = {
            "kty": "RSA",
            "kid": KEY_ID,
            "use": "sig",
            "alg": "RS256",
            "n": _number(numbers.n),
            "e": _number(numbers.e),
        }
        self.keys_file = folder / "keys.json"
        self.keys_file.write_text(json.dumps({"keys": [jwk]}))

    def token(self, subject: str = USER, lifetime_s: float = 3600, audience: str = AUDIENCE) -> str:
        """A signed token; with a negative lifetime one that has expired."""
        now = int(time.time())
        claims = {
            "sub": subject, "iss": ISSUER, "aud": audience, "iat": now - 60, "exp": now + int(lifetime_s),
            "scope": "kafka",
        }  # fmt: skip
        head = _text({"alg": "RS256", "kid": KEY_ID, "typ": "JWT"})
        signed = f"{head}.{_text(claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _text(value: Mapping[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


@dataclass
class TokenEndpoint:
    """An OAuth 2 token endpoint over HTTPS for the client-credentials grant, and what it was asked."""

    url: str
    lifetime_s: float = 3600
    answered: int = 0
    refused: int = 0


@contextmanager
def token_endpoint(issuer: TokenIssuer, certificate: Path, lifetime_s: float = 3600) -> Iterator[TokenEndpoint]:
    """Serve tokens for USER with CLIENT_SECRET on https://localhost."""
    endpoint = TokenEndpoint("", lifetime_s)
    wanted = "Basic " + base64.b64encode(f"{USER}:{CLIENT_SECRET}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            granted = self.headers["Authorization"] == wanted and form.get("grant_type") == ["client_credentials"]
            endpoint.answered += granted
            endpoint.refused += not granted
            body: dict[str, Any] = {"error": "invalid_client", "error_description": "no such client or secret"}
            if granted:
                token = issuer.token(lifetime_s=endpoint.lifetime_s)
                body = {"access_token": token, "token_type": "Bearer", "expires_in": int(endpoint.lifetime_s)}
            self.send_response(200 if granted else 401)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    endpoint.url = f"https://localhost:{server.server_port}/token"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class SecuredKafka:
    """A running broker, and what clients need to reach it."""

    broker: KafkaBroker
    addresses: Mapping[str, str]  # by listener; as the broker's certificate names it
    authority: Authority
    stranger: Authority  # nobody trusts it
    issuer: TokenIssuer
    server_certificate: Path

    @property
    def bootstrap(self) -> str:
        """The plain listener, where everything is allowed."""
        return self.broker.bootstrap

    @cached_property
    def admin(self) -> AdminClient:
        """A client that may do everything."""
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def set_scram_password(self, user: str, password: str) -> None:
        """Make or change a user of SCRAM-SHA-256 and SCRAM-SHA-512."""
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):  # one mechanism a request
            credential = UserScramCredentialUpsertion(user, ScramCredentialInfo(mechanism, 4096), password.encode())
            for future in self.admin.alter_user_scram_credentials([credential]).values():
                future.result(30)

    def allow(self, wanted: Iterable[Grant], user: str = USER) -> None:
        """Give a user these rights; returns when the broker knows."""
        acls = [_acl(grant, user) for grant in wanted]
        for future in self.admin.create_acls(acls).values():
            future.result(30)
        while not set(acls) <= self._acls():
            time.sleep(0.02)

    def take_away(self, wanted: Iterable[Grant]) -> None:
        """Take these rights from USER; returns when the broker knows."""
        for grant in wanted:
            acl = _acl(grant, USER)
            filter_ = AclBindingFilter(
                acl.restype, acl.name, acl.resource_pattern_type, acl.principal, acl.host, acl.operation,
                acl.permission_type,
            )  # fmt: skip
            for future in self.admin.delete_acls([filter_]).values():
                assert len(future.result(30)) == 1, grant
            while acl in self._acls():
                time.sleep(0.02)

    def _acls(self) -> set[AclBinding]:
        everything = AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, None, None,  # type: ignore[arg-type]  # None is any
            AclOperation.ANY, AclPermissionType.ANY,
        )  # fmt: skip
        return set(self.admin.describe_acls(everything).result(30))


def _acl(grant: Grant, user: str) -> AclBinding:
    kinds = {
        "topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactional-id": ResourceType.TRANSACTIONAL_ID,
    }  # fmt: skip
    kind, pattern = kinds[grant.kind], ResourcePatternType.LITERAL
    if grant.prefixed:
        pattern = ResourcePatternType.PREFIXED
    principal = f"User:{user}"
    operation = OPERATIONS[grant.operation]
    return AclBinding(kind, grant.name, pattern, principal, "*", operation, AclPermissionType.ALLOW)


@contextmanager
def secured_kafka(folder: Path) -> Iterator[SecuredKafka]:
    """Run it, with USER known to all mechanisms."""
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    certificate, issuer = authority.issue("broker", ("localhost",)), TokenIssuer(folder)
    ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
    properties = _properties(ports, authority.file, certificate, issuer.keys_file)
    allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={issuer.keys_file.as_uri()}"
    with KafkaBroker(properties=properties, java_options=[allowed]) as broker:
        addresses = {name: f"localhost:{port}" for name, port in ports.items()}
        secured = SecuredKafka(broker, addresses, authority, stranger, issuer, certificate)
        secured.set_scram_password(USER, PASSWORD)
        yield secured


def _properties(ports: Mapping[str, int], authority: Path, certificate: Path, keys: Path) -> dict[str, str]:
    protocols = {"MTLS": "SSL", "TLS": "SSL", "SASL": "SASL_SSL", "REAUTH": "SASL_SSL", "CLEAR": "SASL_PLAINTEXT"}
    properties = {
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
        "advertised.listeners": ",".join(f"{name}://localhost:{port}" for name, port in ports.items()),
        "listener.security.protocol.map": ",".join(f"{name}:{one}" for name, one in protocols.items()),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificate),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority),
        "ssl.principal.mapping.rules": "RULE:^CN=(.*)$/$1/,DEFAULT",
        "listener.name.mtls.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        "sasl.oauthbearer.jwks.endpoint.url": keys.as_uri(),
        "sasl.oauthbearer.expected.audience": AUDIENCE,
        "sasl.oauthbearer.expected.issuer": ISSUER,
    }
    for listener in ("sasl", "reauth", "clear"):
        of = f"listener.name.{listener}"
        plain = f'{_LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        properties[f"{of}.plain.sasl.jaas.config"] = plain
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            properties[f"{of}.{mechanism}.sasl.jaas.config"] = f"{_LOGIN}.scram.ScramLoginModule required;"
        oauth = f"{_LOGIN}.oauthbearer.OAuthBearer"
        properties[f"{of}.oauthbearer.sasl.jaas.config"] = f"{oauth}LoginModule required;"
        properties[f"{of}.oauthbearer.sasl.server.callback.handler.class"] = f"{oauth}ValidatorCallbackHandler"
    for mechanism in ("plain", "scram-sha-256", "scram-sha-512", "oauthbearer"):
        properties[f"listener.name.reauth.{mechanism}.connections.max.reauth.ms"] = str(REAUTH_MS)
    return properties


WAYS = (
    "mTLS", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER from a file", "OAUTHBEARER from an endpoint",
    "SCRAM-SHA-512 without TLS",
)  # fmt: skip


def way_in(kafka: SecuredKafka, way: str, folder: Path, token_url: str = "") -> tuple[str, dict[str, object]]:
    """The listener, and the settings of the section `broker`, for one of WAYS; secrets lie in files."""
    for name, content in (("password", PASSWORD), ("secret", CLIENT_SECRET), ("token", kafka.issuer.token())):
        (folder / name).write_text(content + "\n")
    tls: dict[str, object] = {"tls": True, "ca_file": str(kafka.authority.file)}
    user = {"username": USER, "password_file": str(folder / "password")}
    oauth = tls | {"mechanism": "OAUTHBEARER"}
    client = {"username": USER, "password_file": str(folder / "secret"), "token_ca_file": str(kafka.authority.file)}
    ways: dict[str, tuple[str, dict[str, object]]] = {
        "mTLS": ("MTLS", tls | {"cert_file": str(kafka.authority.issue(USER))}),
        "PLAIN": ("SASL", tls | user | {"mechanism": "PLAIN"}),
        "SCRAM-SHA-256": ("SASL", tls | user | {"mechanism": "SCRAM-SHA-256"}),
        "SCRAM-SHA-512": ("SASL", tls | user),
        "OAUTHBEARER from a file": ("SASL", oauth | {"token_file": str(folder / "token")}),
        "OAUTHBEARER from an endpoint": ("SASL", oauth | client | {"token_url": token_url, "token_scope": "kafka"}),
        "SCRAM-SHA-512 without TLS": ("CLEAR", user | {"allow_plaintext_credentials": True}),
    }
    return ways[way]


@dataclass(frozen=True)
class Place:
    """Settings with topics and a group of their own, and the file they lie in."""

    settings: Settings
    file: Path

    def but(self, **broker: object) -> Place:
        """The same with other settings of the section `broker`, in a file of its own; None takes one out."""
        given = tomllib.loads(self.file.read_text())
        merged = given["broker"] | broker
        given["broker"] = {key: value for key, value in merged.items() if value is not None}
        return write_place(self.file.with_name(f"other-{len(list(self.file.parent.iterdir()))}.toml"), given)


def place(file: Path, name: str, bootstrap: str, broker: Mapping[str, object], releases: Mapping[str, Path]) -> Place:
    """Settings for a worker whose topics and group begin with `name`."""
    shipped = load_settings(env={})
    topics = {key: f"{name}-{value}" for key, value in shipped.topics.model_dump().items() if isinstance(value, str)}
    given: dict[str, Any] = {
        "broker": {"bootstrap": bootstrap, "group": name, "session_timeout_s": 6, **broker},
        "topics": topics,
        "sources": {key: {"topic": f"{name}-{source.topic}"} for key, source in shipped.sources.items()},
        "metrics": {"port": 0},
        "models": {"device": "cpu", "runtime": "onnxruntime-fp32", "threads": 1},
    }
    given["models"]["releases"] = {task: str(path) for task, path in releases.items()}
    return write_place(file, given)


def write_place(file: Path, given: Mapping[str, Any]) -> Place:
    """Write settings as TOML (JSON's strings, numbers and truth values are TOML too), and read them."""
    lines: list[str] = []
    for section, values in given.items():
        tables = {key: value for key, value in values.items() if isinstance(value, dict)}
        lines += [f"[{section}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items() if k not in tables)]
        for key, table in tables.items():
            lines += [f"[{section}.{key}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    file.write_text("\n".join(lines) + "\n")
    return Place(load_settings(file, env={}), file)
