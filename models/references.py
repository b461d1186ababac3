"""How a release in the model registry is called: `models:/TASK@ALIAS` or `models:/TASK/VERSION`, as in MLflow."""

import re
from typing import NamedTuple

from models.errors import BadReference
from models.tasks import NAME

SCHEME = "models:/"
CHAMPION, CHALLENGER = "champion", "challenger"  # what serves, and what is to take its place if it proves better

_ALIAS = re.compile(r"(?!latest$|v\d+$)[a-z][a-z0-9_-]{0,63}")  # MLflow keeps `latest` and `v1` for itself
_VERSION = re.compile(r"[1-9]\d{0,8}")


class Reference(NamedTuple):
    """A version of a task's releases, by its number or by an alias; the other of the two is None."""

    task: str
    alias: str | None
    version: int | None

    def __str__(self) -> str:
        return f"{SCHEME}{self.task}@{self.alias}" if self.alias else f"{SCHEME}{self.task}/{self.version}"


def is_reference(text: str) -> bool:
    """Whether it is meant for the registry, not for the releases on this machine."""
    return text.startswith(SCHEME)


def parse_reference(text: str) -> Reference:
    """Read a reference; `models:/` may be left out. Raises BadReference saying what is expected."""
    plain = text.removeprefix(SCHEME)
    task, _, alias = plain.partition("@")
    if NAME.fullmatch(task) and _ALIAS.fullmatch(alias):
        return Reference(task, alias, None)
    task, _, version = plain.partition("/")
    if NAME.fullmatch(task) and _VERSION.fullmatch(version):
        return Reference(task, None, int(version))
    raise BadReference(
        f"{text[:200]!r} is no release in the registry: expected {SCHEME}TASK@ALIAS or {SCHEME}TASK/VERSION,"
        f" such as {SCHEME}risk@{CHAMPION} or {SCHEME}risk/3"
    )


def checked_alias(text: str) -> str:
    """An alias that may be given. Raises BadReference saying what is allowed."""
    if _ALIAS.fullmatch(text):
        return text
    raise BadReference(
        f"{text[:200]!r} is no alias: small letters, digits, `-` and `_`, a letter first, 64 at most, and neither"
        f" `latest` nor `v1` and the like; the usual ones are {CHAMPION} and {CHALLENGER}"
    )
