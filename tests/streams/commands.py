"""The `streamgauge` command run inside a test, as the console script runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streams import cli


class Done:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Done]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Run:
    """Runs commands in this folder; named arguments are settings: run("check", BROKER__BOOTSTRAP=...)."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: object, **settings: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["streamgauge", *map(str, arguments)])
        for name, value in settings.items():
            monkeypatch.setenv(f"STREAMGAUGE_{name}", value)
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        return Done(code, *capsys.readouterr())

    return call
