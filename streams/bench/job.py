"""What one system's process is told, and what it counts for the driver to read.

Both are files in the directory of the run: `job.json`, and `tally`, a few numbers in shared memory, which survive
however the process ends.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

JobKind = Literal["stream", "model"]

_FIELDS = ("texts", "tokens", "padded_tokens")
_BYTES = 8  # a signed 64-bit number each


@dataclass(frozen=True)
class Job:
    """One run of one system.

    Attributes:
        kind: `stream` has no model, `model` has the release.
        directory: the run's own, for whatever the system writes.
        partitions: of the input and of the output topic.
        task: the name that predictions carry.
        release: directory of the release; empty for `stream`.
        runtime: by name; `auto` measures and chooses.
        batch_events: what a system that wants a batch size is given.
        batch_wait_ms: what a system that wants a time bound on a batch is given.
        metrics_port: a free one, for a system that serves metrics.
    """

    kind: JobKind
    directory: str
    bootstrap: str
    input_topic: str
    output_topic: str
    group: str
    partitions: int
    task: str
    release: str
    runtime: str
    batch_events: int
    batch_wait_ms: float
    metrics_port: int

    def write(self) -> Path:
        """Put it into the run's directory; returns the file."""
        path = Path(self.directory) / "job.json"
        path.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def from_command_line(cls) -> Self:
        """The job whose file is the program's only argument."""
        if len(sys.argv) != 2:
            sys.exit("usage: python -m streams.bench.systems.NAME JOB.json (streamgauge bench starts it so)")
        return cls(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))

    @property
    def texts_file(self) -> Path:
        """JSON list of the job's texts, for the system that reads no topic."""
        return Path(self.directory) / "texts.json"

    @property
    def model_file(self) -> Path:
        """JSON object: runtime and device of the model, written once it is loaded."""
        return Path(self.directory) / "model.json"


class Tally:
    """Texts scored, and tokens without and with padding. One thread adds at a time."""

    def __init__(self, directory: str) -> None:
        """Open the run's numbers; the first to come makes them, all 0."""
        path = Path(directory) / "tally"
        size = len(_FIELDS) * _BYTES
        with path.open("a+b") as file:
            if file.seek(0, 2) < size:
                file.truncate(size)
            self._numbers = memoryview(mmap.mmap(file.fileno(), size)).cast("q")

    def add(self, texts: int, tokens: int, padded_tokens: int) -> None:
        """Count one batch."""
        for place, number in enumerate((texts, tokens, padded_tokens)):
            self._numbers[place] += number

    def count(self) -> int:
        """Texts scored so far."""
        return self._numbers[0]

    @property
    def padding_ratio(self) -> float | None:
        """Padded over real tokens so far; None before the first."""
        return self._numbers[2] / self._numbers[1] if self._numbers[1] else None
