"""A release from the model registry into a cache on this machine, verified by its hashes.

It is fetched by a process of its own (`python -m models.pulling`): a worker then never has MLflow in its memory, a
registry that hangs is given up, and no file can grow beyond what was registered, whatever an artefact store sends.
"""

import errno
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models import errors, releases
from models.errors import IntegrityError, ModelError, RegistryUnavailable
from models.references import parse_reference
from models.registry import MAX_RELEASE_BYTES, Registry, Version, refuse_strange_files
from models.releases import MANIFEST, MAX_MANIFEST_BYTES, file_sha256, read_manifest
from models.tracking import chosen_address, cleaned, shown

LIMIT_S = 1800.0  # for the whole of it: 100 MB at 60 kB/s

log = logging.getLogger(__name__)


def cache() -> Path:
    """Where pulled releases are, by the hash of their manifest; no search for the newest release looks here."""
    return releases.home() / "pulled"


def pulled(reference: str, address: str | None = None, fresh: bool = False, limit_s: float = LIMIT_S) -> Path:
    """The directory of a release in the registry: from the cache, or fetched; verified either way.

    Args:
        reference: `models:/TASK@ALIAS` or `models:/TASK/VERSION`; an alias means what it means now.
        address: of the registry, see `tracking`.
        fresh: fetch it whether it is in the cache or not.
        limit_s: seconds after which a registry that has not given it is given up.

    Raises:
        BadReference, ReleaseNotFound, RegistryRefused, RegistryUnavailable, MissingExtra: it cannot be had.
        IntegrityError: what the registry gave is not the release that was registered.
    """
    parse_reference(reference)
    address = chosen_address(address)
    request = json.dumps({"reference": reference, "address": address, "fresh": fresh})
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(command, input=request.encode(), capture_output=True, timeout=limit_s, check=False)  # noqa: S603  our own module, no shell
    except subprocess.TimeoutExpired:
        message = f"model registry {shown(address)}: {reference} has not come within {limit_s:g} s"
        raise RegistryUnavailable(message) from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        why = cleaned(done.stderr.decode(errors="replace")[-500:], address)
        raise RegistryUnavailable(f"{reference}: pulling it ended with code {done.returncode}: {why}") from None
    if "error" in answer:
        raise _error(answer["error"], answer["message"])
    log.info("%s is version %d, release %s, verified", reference, answer["version"], answer["release"])
    return Path(answer["directory"])


def pull(registry: Registry, version: Version, folder: Path, fresh: bool = False) -> Path:
    """Bring a version of a `Registry` into `folder`, named by its manifest's hash, unless it is there unharmed."""
    dest = folder / version.sha256
    if dest.is_dir() and not fresh and _unharmed(dest, version.sha256):
        return dest
    with releases.workplace(folder) as tmp_dir:
        fetch(registry, version, tmp_dir)
        if dest.is_dir() and not _unharmed(dest, version.sha256):  # only now: a worker may serve from it
            shutil.rmtree(dest)
        return releases.publish(tmp_dir, dest)


def fetch(registry: Registry, version: Version, directory: Path) -> None:
    """Download a version's files into an empty directory, checking each against what was registered.

    Raises IntegrityError for any file that is not the registered one, too large, or of a kind no release has.
    """
    where, left = str(version.reference), version.total_bytes
    if not 0 < left <= MAX_RELEASE_BYTES:
        raise IntegrityError(f"{where}: of {left} bytes, allowed {MAX_RELEASE_BYTES}")
    left -= _download(registry, version, MANIFEST, directory, min(left, MAX_MANIFEST_BYTES))
    _refuse_other(directory / MANIFEST, version.sha256, where)
    manifest = read_manifest(directory)
    if version.task not in manifest.tasks:
        raise IntegrityError(f"{where}: is a release of {' and '.join(manifest.tasks)}")
    refuse_strange_files(manifest, where)
    for name, sha256 in manifest.files.items():
        left -= _download(registry, version, name, directory, left)
        _refuse_other(directory / name, sha256, where)


def _download(registry: Registry, version: Version, name: str, directory: Path, at_most: int) -> int:
    """One file, of so many bytes at most; returns how many it has."""
    path = directory / name
    too_large = f"{version.reference}: {name}: larger than what was registered"
    try:
        with _files_end_at(at_most):
            registry.download(version, name, path)
    except ModelError as error:
        if os.strerror(errno.EFBIG) in str(error):
            raise IntegrityError(too_large) from None
        raise
    if path.is_symlink() or not path.is_file():
        raise IntegrityError(f"{version.reference}: {name}: did not come as a file")
    path.chmod(0o644)  # some stores keep the mode it had there
    return path.stat().st_size


@contextmanager
def _files_end_at(size: int) -> Iterator[None]:
    """The system lets no file of this process grow beyond `size` bytes meanwhile: an honest limit for any store."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(0, size) if hard < 0 else min(max(0, size), hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _refuse_other(path: Path, sha256: str, where: str) -> None:
    found = file_sha256(path)
    if found != sha256:
        raise IntegrityError(
            f"{where}: {path.name}: is not what was registered (sha256 {found[:12]}..., registered {sha256[:12]}...);"
            " its artefact was changed: register the release again from a copy that is whole"
        )


def _unharmed(directory: Path, sha256: str) -> bool:
    try:
        _refuse_other(directory / MANIFEST, sha256, str(directory))
        releases.verify(directory)
    except IntegrityError as error:
        log.warning("its copy here is damaged and is replaced: %s", error)
        return False
    return True


def _error(kind: str, message: str) -> ModelError:
    found = getattr(errors, kind, RegistryUnavailable)
    if isinstance(found, type) and issubclass(found, ModelError):
        return found(message)
    return RegistryUnavailable(message)


def main() -> None:
    """Entry of the process that fetches: a request on standard input, one JSON object on standard output."""
    request, answer = json.load(sys.stdin), dict[str, Any]()
    try:
        registry = Registry(request["address"])
        version = registry.resolve(parse_reference(request["reference"]))
        directory = pull(registry, version, cache(), request["fresh"])
        answer = {"directory": str(directory), "version": version.number, "release": version.release}
    except ModelError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
