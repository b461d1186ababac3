"""Puts hostile records through what a worker puts them through, and holds each to exactly one bounded end."""

from __future__ import annotations

import base64
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from models.tasks import load_task
from streams.decisions import decide
from streams.envelope import dead_letter
from streams.events import Event, Output, Rejected, iso
from streams.intake import Intake
from streams.live import Served
from streams.publishing import MAX_MESSAGE_BYTES
from streams.settings import Settings, load_settings
from streams.surges import SurgeDetector
from tests.streams.records import FakeRecord

NOW_S = 1_770_000_000.0
SLOWEST_S = 2.0  # of the processor, for one input of ten megabytes
MAX_GROWTH_MIB = 256.0
LETTER_HOLDS_BYTES = 5_000_000  # of a value, whatever it is
KEPT_PROBLEMS = 20


@dataclass
class Ordeal:
    """What became of the inputs; `problems` holds the first of those that had no proper end."""

    inputs: int = 0
    events: int = 0
    dead_letters: int = 0
    escapes: int = 0
    slowest_ms: float = 0.0
    largest_letter_bytes: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def blame(self, record: FakeRecord, what: str) -> None:
        """An input had no proper end."""
        self.escapes += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(f"offset {record.offset}: {what}; value begins {(record.value or b'')[:80]!r}")


class Gauntlet:
    """The shipped sources' intake, and what is made of events and rejections."""

    def __init__(self) -> None:
        self.settings: Settings = load_settings(env={})
        self._intakes = {
            name: Intake(name, source, self.settings.intake) for name, source in self.settings.sources.items()
        }
        labels = {task: tuple(load_task(task).labels) or ("negative", "positive") for task in self.settings.tasks}
        self._served = {
            name: [Served(load_task(task), "r1", labels[task]) for task in source.tasks]
            for name, source in self.settings.sources.items()
        }
        self._detector = SurgeDetector.restored(self.settings.surge, {}, None)
        self._observed = 0
        self.found = Ordeal()

    def run(self, source: str, records: Sequence[FakeRecord]) -> None:
        """Each record alone, timed."""
        for record in records:
            started_s = time.process_time()
            try:
                self._one(source, record)
            except Exception as error:
                self.found.blame(record, f"{type(error).__name__} escaped: {error}")
            took_s = time.process_time() - started_s
            self.found.slowest_ms = max(self.found.slowest_ms, took_s * 1000)
            if took_s > SLOWEST_S:
                self.found.blame(record, f"took {took_s:.1f} s of the processor")

    def _one(self, source: str, record: FakeRecord) -> None:
        self.found.inputs += 1
        verdicts = self._intakes[source].decode([record], NOW_S)
        if len(verdicts) != 1 or verdicts[0].at.offset != record.offset:
            self.found.blame(record, f"{len(verdicts)} verdicts")
            return
        verdict = verdicts[0]
        if isinstance(verdict, Event):
            self.found.events += 1
            self._score(source, record, verdict)
        else:
            self.found.dead_letters += 1
            self._bury(source, record, verdict)

    def _score(self, source: str, record: FakeRecord, event: Event) -> None:
        """Whatever is taken in can be decided on, sent, and observed."""
        for served in self._served[source]:
            scores = (0, [1.0] + [0.0] * (len(served.labels) - 1))
            for output in decide(event, [(served, scores)], self.settings.surge, iso(NOW_S)):
                size = self._sent(record, output)
                if size > 4 * len(record.value or b"") + 10_000:
                    self.found.blame(record, f"an output of {size} bytes")
                if output.name == "observations" and isinstance(output.value, dict):
                    self._detector.observe(self._observed, output.value)  # type: ignore[arg-type]
                    self._observed += 1
        if self._detector.entities > self.settings.surge.max_entities:
            self.found.blame(record, f"{self._detector.entities} entities remembered")
        self._detector.changed()

    def _bury(self, source: str, record: FakeRecord, rejected: Rejected) -> None:
        self.found.errors[rejected.error] = self.found.errors.get(rejected.error, 0) + 1
        if rejected.error == "Unexpected":
            self.found.blame(record, f"not foreseen: {rejected.message}")
        letter = dead_letter(record, source, rejected, NOW_S)
        size = self._sent(record, letter)
        self.found.largest_letter_bytes = max(self.found.largest_letter_bytes, size)
        back = orjson.loads(orjson.dumps(letter.value))
        value, key = (
            None if one is None else base64.b64decode(one) for one in (back["value_base64"], back["key_base64"])
        )
        headers = [(name, None if one is None else base64.b64decode(one)) for name, one in back["headers_base64"]]
        if back["truncated"]:
            whole = len(record.value or b"") > LETTER_HOLDS_BYTES and (record.value or b"").startswith(value or b"-")
        else:
            whole = (value, key, headers) == (record.value, record.key, list(record.headers))
        if not whole:
            self.found.blame(record, "the dead letter does not hold the original")

    def _sent(self, record: FakeRecord, output: Output) -> int:
        """The size of an output as the publisher serialises it."""
        output.key.encode()
        data = output.value if isinstance(output.value, bytes) else orjson.dumps(output.value)
        if len(data) > MAX_MESSAGE_BYTES:
            self.found.blame(record, f"an output of {len(data)} bytes cannot be sent")
        return len(data)


def resident_mib() -> float:
    """The highest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
