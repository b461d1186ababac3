"""A release's golden set: token ids of held-out texts, and the float32 logits that the trained model gave them.

What runs a release must give these logits again, within its precision, before it serves: see `models.runtimes.parity`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.errors import IntegrityError
from models.releases import parsed

GOLDEN = "golden.json"
GOLDEN_TEXTS = 256  # a fraction of a second to run, and one text is already less than half a percent of them
MAX_GOLDEN_BYTES = 64 << 20
MAX_WINDOW_TOKENS = 8192  # as many as a release may read at once
MAX_COLUMNS = 65_536
MAX_TOKEN_ID = 2**31 - 1

Floats = npt.NDArray[np.float32]


class Golden(NamedTuple):
    """Token ids of n texts, special tokens included, and the source's logits [n, columns]."""

    windows: list[list[int]]
    logits: Floats


_Window = Annotated[
    list[Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]], Field(min_length=1, max_length=MAX_WINDOW_TOKENS)
]
_Row = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=2, max_length=MAX_COLUMNS)]


class _GoldenFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    windows: list[_Window] = Field(min_length=1, max_length=GOLDEN_TEXTS)
    logits: list[_Row] = Field(min_length=1, max_length=GOLDEN_TEXTS)

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if len(self.windows) != len(self.logits):
            raise ValueError(f"{len(self.windows)} windows but {len(self.logits)} rows of logits")
        if len({len(row) for row in self.logits}) != 1:
            raise ValueError("rows of logits differ in length")
        return self


def write_golden(directory: Path, windows: Sequence[Sequence[int]], logits: Floats) -> None:
    """Write golden.json: `windows` are token ids of 1 to GOLDEN_TEXTS texts, `logits` [n, columns] the source's own.

    Raises IntegrityError for what `read_golden` would refuse, so that no release is made with a set it cannot use.
    """
    rows = [orjson.loads(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for row in logits.astype(np.float32)]
    content = orjson.dumps({"windows": [list(window) for window in windows], "logits": rows})
    parsed(_GoldenFile, directory / GOLDEN, content, MAX_GOLDEN_BYTES)
    (directory / GOLDEN).write_bytes(content + b"\n")


def read_golden(directory: Path) -> Golden | None:
    """The golden set of a release; None when it has none. Raises IntegrityError for a file that cannot be one."""
    path = directory / GOLDEN
    try:
        with path.open("rb") as file:
            content = file.read(MAX_GOLDEN_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read: {error.strerror}") from error
    golden = parsed(_GoldenFile, path, content, MAX_GOLDEN_BYTES)
    return Golden(golden.windows, np.array(golden.logits, np.float32))
