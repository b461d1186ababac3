"""Decisions of earlier starts, so that a worker measures once on a machine and not at every start.

home()/runtimes/<key>.json      delete it, or the folder, to have everything measured anew
"""

import hashlib
import json
import logging
import os
import platform
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models import releases
from models.golden import GOLDEN
from models.releases import MODEL, file_sha256
from models.runtimes.cuda import cuda_device
from models.runtimes.protocol import cores

MAX_DECISION_BYTES = 1 << 20
PACKAGES = (
    *("onnxruntime", "onnxruntime-gpu", "openvino", "torch", "transformers", "onnx"),
    *("tensorrt-cu12", "tensorrt-cu13", "numpy"),
)

log = logging.getLogger(__name__)


class Finding(BaseModel):
    """What was found about a candidate: its rate, or why it was refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    texts_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    tokens_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    refused: str | None = None


class Decision(BaseModel):
    """Which runtime serves a release on this machine, and what all of them were found to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chosen: str
    findings: tuple[Finding, ...] = Field(min_length=1)


def decision_key(
    directory: Path, device: str, slots: int, heads: Sequence[slice], candidates: Sequence[tuple[str, float, float]]
) -> str:
    """A hash over all a decision depends on: the release, how it is judged, libraries, machine."""
    facts = {
        "model": file_sha256(directory / MODEL),
        "golden": file_sha256(directory / GOLDEN),
        "heads": [[columns.start, columns.stop] for columns in heads],
        "gate": [*candidates],  # each with how far it may be off, and on how many labels
        "device": cuda_device() if device == "cuda" else device,
        "slots": slots,
        "versions": {name: _version(name) for name in PACKAGES},
        "cpu": _cpu(),
        "cores": cores(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def recall(key: str) -> Decision | None:
    """The decision remembered under a key; None when there is none, or none that can be read."""
    path = _path(key)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DECISION_BYTES + 1)
        if len(content) > MAX_DECISION_BYTES:
            raise ValueError(f"larger than {MAX_DECISION_BYTES} bytes")
        return Decision.model_validate_json(content)
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, ValueError) as error:
        log.warning("%s: ignored, and measured anew: %s", path, str(error).splitlines()[0])
        return None


def remember(key: str, decision: Decision) -> None:
    """Write a decision down, whole or not at all; a home that cannot be written costs a measurement at each start."""
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".decision-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(decision.model_dump_json(indent=2) + "\n")
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s: the choice of a runtime cannot be kept: %s", path, error.strerror)


def _path(key: str) -> Path:
    return releases.home() / "runtimes" / f"{key}.json"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    """The CPU's model and abilities: machines of a cloud share a name and differ in the latter."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(line for line in lines if line.startswith(told))
