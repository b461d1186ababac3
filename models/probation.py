"""A release tried in a process of its own before a running worker takes it into its memory.

Loading is where a broken or hostile graph does its harm: native code that crashes, or takes minutes and gigabytes. Here
that ends a child, at low priority, and the worker goes on with what it serves. The child also measures which runtime is
the fastest and remembers it, so that the worker need not do so while events wait.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from models import errors
from models.errors import IntegrityError, ModelError

LIMIT_S = 600.0  # a large encoder measured on every runtime of a busy machine
_NICENESS = 10
_MAX_REASON_CHARS = 500


def tried(directory: Path, device: str, runtime: str, threads: int | None, limit_s: float = LIMIT_S) -> str:
    """Load a release and run its golden texts elsewhere; returns the name of the runtime that passes.

    Raises:
        ModelError: the release cannot serve here, as `Model.load` says it.
        IntegrityError: loading it crashes, or does not end within `limit_s` seconds.
    """
    request = {"directory": str(directory), "device": device, "runtime": runtime, "threads": threads}
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(  # noqa: S603  our own module, no shell
            command, input=json.dumps(request).encode(), capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise IntegrityError(f"{directory}: cannot be loaded within {limit_s:g} s") from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = " ".join(done.stderr.decode(errors="replace")[-_MAX_REASON_CHARS:].split())
        raise IntegrityError(f"{directory}: loading it ends a process with code {done.returncode}: {said}") from None
    if "error" in answer:
        kind = getattr(errors, answer["error"], ModelError)
        raise kind(answer["message"])
    return str(answer["runtime"])


def main() -> None:
    """Entry of the process that tries: a request on standard input, one JSON object as the last line of its output."""
    from models.classifier import Model  # for this process alone: whoever asks has no need of runtimes

    os.nice(_NICENESS)
    request = json.load(sys.stdin)
    try:
        model = Model.load(
            Path(request["directory"]),
            device=request["device"],
            runtime=request["runtime"],
            threads=request["threads"],
        )
        answer = {"runtime": model.runtime}
    except ModelError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer), flush=True)
    os._exit(0)  # native libraries are not waited for


if __name__ == "__main__":
    main()
