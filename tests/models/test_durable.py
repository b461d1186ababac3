from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.durable import held, replace_file
from models.errors import Busy


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for content in (b"one", b"two"):
        replace_file(path, content)
        assert path.read_bytes() == content
    assert [one.name for one in tmp_path.iterdir()] == ["state.json"]


def test_one_process_holds_a_lock_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / ".lock"
    code = (
        "import sys; from pathlib import Path; from models.durable import held\n"
        "with held(Path(sys.argv[1]), 'a collector'):\n    print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdin is not None
    with other, other.stdin, other.stdout:
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(Busy, match=rf"a collector is at work already \(process {other.pid}\)"),
            held(path, "a collector"),
        ):
            pass
        other.kill()
    with held(path, "a collector"):
        assert path.read_text() == f"{os.getpid()}\n"
    with held(path, "a collector"):  # and again
        pass
