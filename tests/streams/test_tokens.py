from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from streams.exits import AccessRefused, BrokerUnavailable
from streams.secrets import SecurityError
from streams.settings import BrokerSettings, load_settings
from streams.tokens import OPAQUE_LIFE_S, Token, TokenSource, parse_token, token_source
from tests.streams.fakes import Clock, jwt

SHIPPED = load_settings(env={}).broker
SECRET = "a client's secret: with & all = kinds / of % signs"  # noqa: S105 - made up


def broker(**changes: object) -> BrokerSettings:
    return BrokerSettings.model_validate(SHIPPED.model_dump() | {"tls": True, "mechanism": "OAUTHBEARER"} | changes)


def test_a_token_says_itself_who_and_until_when() -> None:
    token = parse_token(jwt(sub="desk", exp=2e9), "here", 1e9)
    assert (token.subject, token.expires_at_s) == ("desk", 2e9)
    assert token.text not in repr(token)


@pytest.mark.parametrize("text", ["opaque", "a.b.c", jwt(exp="soon"), jwt(exp=True), jwt(exp=-5), jwt(exp=1e300)])
def test_a_token_that_does_not_say_is_looked_at_again_soon(text: str) -> None:
    assert parse_token(text, "here", 1e9).expires_at_s == 1e9 + OPAQUE_LIFE_S
    assert parse_token(text, "here", 1e9, 10).expires_at_s == 1e9 + 10


@pytest.mark.parametrize("text", ["", "two words", "a\x01auth=other", "line\nbreak", "{}", "ünïcode"])
def test_what_cannot_be_a_bearer_token_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(SecurityError, match=r"^here holds no bearer token") as caught:
        parse_token(text, "here", 1e9)
    assert not text or text not in str(caught.value)


class Issuer:
    """Gives numbered tokens that live for 100 seconds, unless told to fail."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.asked, self.fails = clock, 0, False

    def __call__(self) -> Token:
        self.asked += 1
        if self.fails:
            raise BrokerUnavailable("the endpoint does not answer")
        return Token(str(self.asked), self.clock() + 100)


def test_a_token_is_renewed_before_its_end_and_kept_until_then() -> None:
    clock = Clock(1000)
    issuer = Issuer(clock)
    source = TokenSource(issuer, renew_after=0.75, clock=clock)
    assert [source.token().text for _ in range(3)] == ["1", "1", "1"]
    clock.now_s = 1074
    assert source.token().text == "1"
    clock.now_s = 1075
    assert source.token().text == "2"


def test_while_none_can_be_had_the_last_one_serves_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(1000)
    issuer = Issuer(clock)
    source = TokenSource(issuer, renew_after=0.75, clock=clock)
    source.token()
    issuer.fails, clock.now_s = True, 1080
    assert source.token().text == "1"
    assert "good for another 20 s" in caplog.text
    clock.now_s = 1084
    assert (source.token().text, issuer.asked) == ("1", 2), "asked again at once"
    clock.now_s = 1100
    with pytest.raises(BrokerUnavailable):
        source.token()
    issuer.fails = False
    assert source.token().text == str(issuer.asked)


def test_a_file_is_read_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = token_source(broker(token_file=path))
    for number in (1, 2):
        path.write_text(jwt(exp=time.time() + 60, jti=number) + "\n")
        assert source.token().text == path.read_text().strip()


def test_an_expired_file_is_named_with_its_end(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(jwt(exp=1_700_000_000))
    with pytest.raises(AccessRefused, match=r"broker\.token_file: .*token expired at 2023-11-14T22:13:20Z"):
        token_source(broker(token_file=path)).token()


class Endpoint:
    """A token endpoint on loopback that answers what it is told to."""

    def __init__(self) -> None:
        self.status, self.body, self.headers = 200, b"{}", dict[str, str]()
        self.seen: list[tuple[str, str]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                endpoint.seen.append((self.headers["Authorization"], form))
                self.send_response(endpoint.status)
                for name, value in endpoint.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(endpoint.body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def source(self, **changes: object) -> TokenSource:
        """As the settings name it; with http, as nothing here leaves the machine."""
        url = f"http://127.0.0.1:{self._server.server_port}/token"
        given = {"username": "desk", "password": SecretStr(SECRET), "allow_plaintext_credentials": True}
        return token_source(broker(token_url=url, **(given | changes)))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    running = Endpoint()
    yield running
    running.close()


def test_an_endpoint_gives_a_token_for_id_and_secret(endpoint: Endpoint) -> None:
    endpoint.body = json.dumps({"access_token": "opaque-token", "expires_in": 300}).encode()
    token = endpoint.source(token_scope="kafka read").token()
    assert token.text == "opaque-token"
    assert 290 < token.expires_at_s - time.time() < 301
    authorization, form = endpoint.seen[0]
    encoded = "a+client%27s+secret%3A+with+%26+all+%3D+kinds+%2F+of+%25+signs"
    assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == f"desk:{encoded}"
    assert form == "grant_type=client_credentials&scope=kafka+read"


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_client_is_named_and_its_secret_is_not(endpoint: Endpoint, status: int) -> None:
    endpoint.status, endpoint.body = status, SECRET.encode()
    with pytest.raises(
        AccessRefused, match=rf"broker\.token_url: .* refuses the client 'desk' \(HTTP {status}\)"
    ) as bad:
        endpoint.source().token()
    assert SECRET not in str(bad.value)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_endpoint_in_trouble_is_unavailable(endpoint: Endpoint, status: int) -> None:
    endpoint.status = status
    with pytest.raises(BrokerUnavailable, match=rf"gives no token now \(HTTP {status}\)"):
        endpoint.source().token()


def test_the_secret_follows_no_redirect(endpoint: Endpoint) -> None:
    endpoint.status, endpoint.headers = 307, {"Location": "http://127.0.0.1:9/elsewhere"}
    with pytest.raises(AccessRefused, match=r"is not a token endpoint \(HTTP 307\)"):
        endpoint.source().token()
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{}", b"[" * 100_000, b'{"access_token": 1}', b'{"access_token": "a", "expires_in": NaN}'],
)
def test_an_answer_without_a_token_is_refused(endpoint: Endpoint, body: bytes) -> None:
    endpoint.body = body
    with pytest.raises(AccessRefused, match="answers without a token"):
        endpoint.source().token()


def test_an_endpoint_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    given = {"username": "desk", "password": SecretStr(SECRET), "token_url": "https://127.0.0.1:9/token"}
    with pytest.raises(BrokerUnavailable, match=r"broker\.token_url: https://127\.0\.0\.1:9/token does not answer"):
        token_source(broker(**given)).token()
