"""Where a release comes from: the code that made it, and the release before it."""

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

VERSION = "0.1.0"  # of Streamgauge; pyproject.toml and the changelog say the same


class Code(BaseModel):
    """What made a release: the version of Streamgauge, and a hash over the sources of `models` as they were."""

    model_config = ConfigDict(frozen=True)

    version: str = Field(max_length=100)
    sha256: Sha256


class Parent(BaseModel):
    """The release that another one was made from, or made to replace; `sha256` is that of its manifest."""

    model_config = ConfigDict(frozen=True)

    release: str = Field(min_length=1, max_length=300)
    sha256: Sha256


def this_code() -> Code:
    """The code that runs now, whether it is installed, a checkout, or a checkout with changes."""
    return Code(version=VERSION, sha256=sources_sha256(Path(__file__).parent))


def sources_sha256(folder: Path) -> str:
    """One hash over every Python and TOML file below a folder, their relative paths included."""
    digest = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.suffix in {".py", ".toml"}):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()
