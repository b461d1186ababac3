"""The verifier, a process of its own: reads every output while the storm rages, and judges when it is told to.

    python -m tests.storm.verifier DIRECTORY

It is told where everything is by `verifier.json` in the directory. While it reads it prints `{"ends": N}` lines; once
it is told on its standard input how many events were sent, it reads to the end of every topic, and its last line is the
verdict.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from confluent_kafka import Message, TopicPartition
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from tests.storm.judging import Coordinates, Ledger, naive_losses
from tests.storm.offsets import client, end_of, positions
from tests.storm.patience import Patience

ORACLE, COORDINATES, JOB = "oracle.jsonl", "coordinates.txt", "verifier.json"
REPORT_S = 0.2
END_TIMEOUT_S = 180.0


class Job(TypedDict):
    """What a verifier is told: topics by the name of the output, and the topics that the workers' group reads."""

    bootstrap: str
    group: str
    partitions: int
    outputs: dict[str, str]
    inputs: list[str]
    naive: bool


class Verifier:
    """Reads and judges."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._job = TypeAdapter(Job).validate_json((directory / JOB).read_text(encoding="utf-8"))
        self._names = {topic: name for name, topic in self._job["outputs"].items()}
        self._ledger = Ledger()
        self._event_ids: set[str] = set()  # of a naive worker's predictions
        self._next: dict[tuple[str, int], int] = {
            (topic, part): 0 for topic in self._names for part in range(self._job["partitions"])
        }
        self._consumer = client(self._job["bootstrap"], "storm-verifier", **{"auto.offset.reset": "error"})
        self._consumer.assign([TopicPartition(topic, part, 0) for topic, part in self._next])

    def follow(self, told_to_judge: threading.Event) -> None:
        """Read until told to judge."""
        reported_s = 0.0
        while not told_to_judge.is_set():
            self._take(self._consumer.consume(1000, 0.1))
            if time.monotonic() - reported_s > REPORT_S:
                print(json.dumps({"ends": self._ends()}), flush=True)
                reported_s = time.monotonic()

    def judge(self, sent: int) -> dict[str, Any]:
        """Read to the end, and hold what came against the oracle of the events that were sent."""
        self._read_to_the_end()
        oracle = islice(self._oracle(), sent)
        if self._job["naive"]:
            return {"lost": naive_losses(self._event_ids, oracle)}
        job = self._job
        reached = positions(job["bootstrap"], job["group"], job["inputs"], job["partitions"])
        verdict = self._ledger.judge(oracle, self._places(), reached)
        return verdict.as_dict() | {"holds": verdict.holds}

    def _ends(self) -> int:
        return len(self._event_ids) if self._job["naive"] else self._ledger.ends

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if message.error() is not None or topic is None or partition is None or offset is None:
                continue  # a broker is away
            self._next[topic, partition] = offset + 1
            value = message.value() or b""
            if self._job["naive"]:
                self._event_ids.add(json.loads(value)["event_id"])
            else:
                self._ledger.take(self._names[topic], (message.key() or b"").decode(), value)

    def _read_to_the_end(self) -> None:
        patience = Patience(END_TIMEOUT_S)
        ends = {tp: end_of(self._consumer, *tp) for tp in self._next}
        while any(self._next[tp] < end for tp, end in ends.items()):
            if patience.over:
                behind = {f"{t}/{p}": (self._next[t, p], end) for (t, p), end in ends.items() if self._next[t, p] < end}
                raise TimeoutError(f"the outputs could not be read to their end: {behind}")
            self._take(self._consumer.consume(1000, 0.2))

    def _oracle(self) -> Iterator[dict[str, Any]]:
        with (self._directory / ORACLE).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def _places(self) -> dict[int, Coordinates]:
        found = {}
        for line in (self._directory / COORDINATES).read_text(encoding="utf-8").splitlines():
            number, topic, partition, offset = line.split()
            found[int(number)] = topic, int(partition), int(offset)
        return found


def main() -> None:
    """Follow until standard input closes, then judge."""
    verifier = Verifier(Path(sys.argv[1]))
    told_to_judge, told = threading.Event(), list[str]()

    def listen() -> None:
        told.append(sys.stdin.read())
        told_to_judge.set()

    threading.Thread(target=listen, daemon=True).start()
    verifier.follow(told_to_judge)
    print(json.dumps({"verdict": verifier.judge(int(told[0]))}), flush=True)


if __name__ == "__main__":
    main()
