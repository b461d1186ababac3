"""OAuth 2 tokens for SASL OAUTHBEARER: one source for both Kafka clients, so that they agree on who they are.

A token comes from a file that something beside us keeps fresh (a sidecar, Kubernetes), or from an OpenID Connect token
endpoint by the client-credentials grant. Its text shows in no repr, log line or error.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import logging
import math
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

from streams.exits import AccessRefused, BrokerUnavailable
from streams.secrets import SecurityError, password_of, read_secret
from streams.settings import BrokerSettings

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 256 * 1024
ENDPOINT_TIMEOUT_S = 10.0
RENEW_AFTER = 0.75  # of a token's life; librdkafka asks at 0.8
OPAQUE_LIFE_S = 60.0  # a token that does not say when it ends is looked at again after so long
_SHAPE = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # b64token of RFC 6750: nothing that could end the SASL message early


@dataclass(frozen=True)
class Token:
    """A bearer token. `subject` is who it says the client is, where that can be read."""

    text: str = field(repr=False)
    expires_at_s: float  # seconds since 1970
    subject: str | None = None


class TokenSource:
    """Hands out a token that is valid now, and gets a new one in time.

    Args:
        fetch: brings a token.
        renew_after: a token is kept for this share of its life; 0 fetches each time.
        clock: wall clock, seconds since 1970.
    """

    def __init__(
        self, fetch: Callable[[], Token], renew_after: float = RENEW_AFTER, clock: Callable[[], float] = time.time
    ) -> None:
        self._fetch = fetch
        self._renew_after = renew_after
        self._clock = clock
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._renew_at_s = 0.0

    def token(self) -> Token:
        """The current token. Called from several threads; blocks while one of them fetches.

        Raises:
            SecurityError: the file cannot be used.
            AccessRefused: the token has expired, or the endpoint refuses the client.
            BrokerUnavailable: the endpoint does not answer, and the last token has expired.
        """
        with self._lock:
            now_s = self._clock()
            if self._token is None or now_s >= self._renew_at_s:
                self._renew(now_s)
            assert self._token is not None  # noqa: S101 - _renew raises otherwise
            return self._token

    def _renew(self, now_s: float) -> None:
        try:
            token = self._fetch()
        except (AccessRefused, BrokerUnavailable, SecurityError) as error:
            if self._token is None or now_s >= self._token.expires_at_s:
                raise
            log.warning("%s; the last token is good for another %.0f s", error, self._token.expires_at_s - now_s)
            self._renew_at_s = now_s + (self._token.expires_at_s - now_s) * (1 - RENEW_AFTER)
            return
        self._token = token
        self._renew_at_s = now_s + (token.expires_at_s - now_s) * self._renew_after


@functools.lru_cache(16)
def token_source(broker: BrokerSettings) -> TokenSource:
    """The one source of these settings in this process."""
    if broker.token_file is not None:
        return TokenSource(functools.partial(_from_file, broker.token_file), renew_after=0)
    return TokenSource(functools.partial(_from_endpoint, broker))


def _from_file(path: Path) -> Token:
    token = parse_token(read_secret("broker.token_file", path), f"broker.token_file: {path}", time.time())
    if token.expires_at_s <= time.time():
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(token.expires_at_s))
        raise AccessRefused(f"broker.token_file: the token in {path} expired at {when}; see why nothing has renewed it")
    return token


def parse_token(text: str, where: str, now_s: float, life_s: float = OPAQUE_LIFE_S) -> Token:
    """A token and what can be read from it: a JWT says itself when it ends, any other is trusted for `life_s`.

    Raises SecurityError, naming `where`, if the text cannot be a bearer token. Its signature is the broker's to check.
    """
    if not _SHAPE.fullmatch(text):
        raise SecurityError(f"{where} holds no bearer token: letters, digits and -._~+/= are allowed, in one line")
    claims = _claims(text)
    expires, subject = claims.get("exp"), claims.get("sub")
    if not isinstance(expires, (int, float)) or isinstance(expires, bool) or not 0 < expires < 1e11:
        expires = now_s + life_s
    return Token(text, float(expires), subject[:200] if isinstance(subject, str) else None)


def _claims(text: str) -> dict[str, Any]:
    parts = text.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the client's secret to an address nobody has named."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse it: the answer counts as an error."""
        return None


def _from_endpoint(broker: BrokerSettings) -> Token:
    url = str(broker.token_url)
    answer = _ask(broker, url)
    try:
        body = json.loads(answer)
        text, life_s = body["access_token"], float(body.get("expires_in", OPAQUE_LIFE_S))
        if not isinstance(text, str) or not math.isfinite(life_s):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise AccessRefused(
            f"broker.token_url: {url} answers without a token; it must be the token endpoint of an OAuth 2 server"
        ) from None
    return parse_token(text, f"broker.token_url: {url}", time.time(), life_s)


def _ask(broker: BrokerSettings, url: str) -> bytes:
    form = {"grant_type": "client_credentials"} | ({"scope": broker.token_scope} if broker.token_scope else {})
    # RFC 6749, 2.3.1: id and secret are form-encoded before they are joined.
    name, secret = (urllib.parse.quote_plus(one) for one in (str(broker.username), password_of(broker)))
    authorization = "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - the settings allow http and https alone
        url,
        data=urllib.parse.urlencode(form).encode(),
        headers={"Authorization": authorization, "Accept": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=_context(broker)), _NoRedirects)
    try:
        with opener.open(request, timeout=ENDPOINT_TIMEOUT_S) as answer:
            return bytes(answer.read(MAX_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise _http_error(broker, url, error.code) from None
    except (OSError, HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise AccessRefused(
                f"broker.token_url: the certificate of {url} is not trusted ({cause.verify_message}); set "
                "broker.token_ca_file to the certificates of its authority, or mend the host name"
            ) from None
        raise BrokerUnavailable(f"broker.token_url: {url} does not answer ({cause}); is it up?") from None


def _http_error(broker: BrokerSettings, url: str, status: int) -> Exception:
    if status in (400, 401, 403):
        secret = f"broker.password_file {broker.password_file}" if broker.password_file else "broker.password"
        return AccessRefused(
            f"broker.token_url: {url} refuses the client {broker.username!r} (HTTP {status}); check broker.username, "
            f"{secret} and broker.token_scope"
        )
    if 300 <= status < 400 or status == 404:
        return AccessRefused(f"broker.token_url: {url} is not a token endpoint (HTTP {status}); correct the address")
    return BrokerUnavailable(f"broker.token_url: {url} gives no token now (HTTP {status})")


def _context(broker: BrokerSettings) -> ssl.SSLContext:
    path = broker.token_ca_file
    try:
        return ssl.create_default_context(cafile=str(path) if path else None)
    except OSError as error:
        raise SecurityError(
            f"broker.token_ca_file: {path} cannot be used ({error.strerror or error}); it must hold PEM certificates"
        ) from None
