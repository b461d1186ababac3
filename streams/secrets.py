"""Where secrets come from: settings or small files, read at the moment they are needed."""

from __future__ import annotations

from pathlib import Path

from streams.settings import BrokerSettings

MAX_SECRET_BYTES = 64 * 1024  # a file that is larger is the wrong file


class SecurityError(ValueError):
    """Credentials or certificates that cannot be used; the message names the setting or the file, never a secret."""


def password_of(broker: BrokerSettings) -> str:
    """The password of `broker.username`, or the secret of that client. Raises SecurityError."""
    if broker.password is not None:
        return broker.password.get_secret_value()
    if broker.password_file is None:
        raise SecurityError("broker.username needs broker.password or broker.password_file")
    return read_secret("broker.password_file", broker.password_file)


def read_secret(setting: str, path: Path) -> str:
    """The text of a file, without the white space around it.

    Raises:
        SecurityError: it cannot be read, is empty, too large, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        if len(content) > MAX_SECRET_BYTES:
            raise SecurityError(f"{setting}: {path} is larger than {MAX_SECRET_BYTES} bytes")
        secret = content.decode("utf-8").strip()
    except OSError as error:
        raise SecurityError(
            f"{setting}: {path} cannot be read ({error.strerror}); check the path and its permissions"
        ) from None
    except UnicodeDecodeError:
        raise SecurityError(f"{setting}: {path} is not UTF-8 text") from None
    if not secret:
        raise SecurityError(f"{setting}: {path} is empty; put the secret into it")
    return secret
