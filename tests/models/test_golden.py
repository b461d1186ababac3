import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import golden
from models.errors import IntegrityError
from models.golden import GOLDEN, GOLDEN_TEXTS, read_golden, write_golden

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def good() -> dict[str, Any]:
    return {"windows": [[2, 7, 3], [2, 3]], "logits": [[0.5, -1.0], [2.0, 0.25]]}


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=8))
def test_what_is_written_is_read_bit_by_bit(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    folder, logits = tmp_path_factory.mktemp("golden"), np.array(rows, np.float32)
    write_golden(folder, [[2, row, 3] for row in range(len(rows))], logits)
    found = read_golden(folder)
    assert found is not None
    assert found.windows == [[2, row, 3] for row in range(len(rows))]
    assert found.logits.dtype == np.float32
    assert found.logits.tobytes() == logits.tobytes()


def test_a_release_may_have_none(tmp_path: Path) -> None:
    assert read_golden(tmp_path) is None


def test_a_trained_release_has_one(joint_release: Path) -> None:
    found = read_golden(joint_release)
    assert found is not None
    assert found.logits.shape == (len(found.windows), 5)


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no text": lambda file: file.update(windows=[], logits=[]),
    "too many texts": lambda file: file.update(
        windows=[[2, 3]] * (GOLDEN_TEXTS + 1), logits=[[0.0, 1.0]] * (GOLDEN_TEXTS + 1)
    ),
    "an empty window": lambda file: file.update(windows=[[], [2]]),
    "a window without end": lambda file: file.update(windows=[[2] * 9000, [2]]),
    "a negative id": lambda file: file.update(windows=[[-1], [2]]),
    "an id that is no number": lambda file: file.update(windows=[["2"], [2]]),
    "an id past 32 bits": lambda file: file.update(windows=[[2**31], [2]]),
    "a row too few": lambda file: file["logits"].pop(),
    "rows of two lengths": lambda file: file.update(logits=[[0.5, -1.0], [2.0, 0.25, 1.0]]),
    "a single column": lambda file: file.update(logits=[[0.5], [2.0]]),
    "a field more": lambda file: file.update(path="/etc/passwd"),
    "a field less": lambda file: file.pop("logits"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_cannot_be_a_golden_set_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = good()
    change(file)
    (tmp_path / GOLDEN).write_text(json.dumps(file), encoding="utf-8")
    with pytest.raises(IntegrityError, match=GOLDEN):
        read_golden(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff\xfe", b'{"windows": [[2]], "logits": [[NaN, 1.0]]}', b"[" * 100_000]
)
def test_bytes_that_are_no_such_json_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / GOLDEN).write_bytes(content)
    with pytest.raises(IntegrityError, match=GOLDEN):
        read_golden(tmp_path)


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "MAX_GOLDEN_BYTES", 100)
    (tmp_path / GOLDEN).write_bytes(b" " * 101)
    with pytest.raises(IntegrityError, match="larger than 100 bytes"):
        read_golden(tmp_path)


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=GOLDEN):
        write_golden(tmp_path, [[2, 3]], np.array([[np.nan, 1.0]], np.float32))
    with pytest.raises(IntegrityError, match=GOLDEN):
        write_golden(tmp_path, [[2, 3]], np.zeros((2, 2), np.float32))
    assert not (tmp_path / GOLDEN).exists()
