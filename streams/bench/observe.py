"""Watches a run from outside: how many outputs there are, what the system's processes used, what came out at last."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # public, but not said so

from streams.bench.statistics import Sample
from streams.exits import BrokerUnavailable

POLL_S = 0.05  # each is a request to the broker, which shares the machine
_REQUEST_S = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Stalled(RuntimeError):
    """Nothing came out for too long; the message says how far it got."""


class Outputs:
    """Counts the records of a topic by asking for its log ends: nothing is consumed while time is taken."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        end: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # it has no types
        self._wanted = {TopicPartition(topic, part): end for part in range(partitions)}

    def count(self) -> int:
        """Records appended so far; raises BrokerUnavailable."""
        deadline_s = time.monotonic() + _REQUEST_S
        while True:
            answers = self._admin.list_offsets(self._wanted, request_timeout=_REQUEST_S)
            try:
                return sum(answer.result().offset for answer in answers.values())
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline_s:
                    raise BrokerUnavailable(f"the ends of the outputs are not known: {error.args[0].str()}") from None
            time.sleep(POLL_S)  # a new topic's leader does not know of it at once


def watch(
    count: Callable[[], int],
    pid: int,
    expected: int,
    stall_s: float,
    alive: Callable[[], None],
    on_count: Callable[[int], None],
) -> list[Sample]:
    """Sample until `expected` outputs are there.

    Args:
        count: outputs so far.
        pid: the system's process; its children count too.
        stall_s: so long without a new output, and it has failed.
        alive: raises when the system has ended.
        on_count: told each count.

    Raises:
        Stalled: too long without an output.
    """

    def sample() -> Sample:
        outputs = count()  # takes the time of a request, and is as it was in the middle of it or later
        return Sample(time.monotonic(), outputs, cpu_s(pid))

    samples = [sample()]
    moved_s = samples[0].at_s
    while samples[-1].outputs < expected:
        time.sleep(POLL_S)
        alive()
        samples.append(sample())
        if samples[-1].outputs > samples[-2].outputs:
            moved_s = samples[-1].at_s
            on_count(samples[-1].outputs)
        elif samples[-1].at_s - moved_s > stall_s:
            raise Stalled(f"{samples[-1].outputs} of {expected} outputs, and none for {stall_s:g} s")
    return samples


def cpu_s(pid: int) -> float:
    """User and system time of a process and of all it started, ended ones included; 0 where Linux's /proc is not."""
    try:
        # After the name in parentheses, which may hold anything: state is field 3, utime to cstime are 14 to 17.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        children = [
            int(child)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child in (thread / "children").read_text(encoding="utf-8").split()
        ]
    except OSError:  # it has ended meanwhile
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / _TICKS + sum(cpu_s(child) for child in children)


class Verdict(NamedTuple):
    """What became of the inputs. `came_ms` is the time stamp of the first output of each event."""

    missing: int
    duplicates: int
    came_ms: Mapping[str, int]


def verify(bootstrap: str, topic: str, partitions: int, records: int, expected: Sequence[str]) -> Verdict:
    """Read all `records` of an output topic and hold them against the ids of the events.

    Raises:
        Stalled: the topic does not give that many.
    """
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": f"{topic}-check", "enable.auto.commit": False, "log_level": 0}
    )
    consumer.assign([TopicPartition(topic, part, 0) for part in range(partitions)])
    seen, came_ms = Counter[str](), dict[str, int]()
    moved_s = time.monotonic()
    try:
        while seen.total() < records:
            for message in consumer.consume(10_000, 0.5):
                if message.error() is None:
                    event_id, stamp_ms = orjson.loads(message.value() or b"")["event_id"], message.timestamp()[1]
                    seen[event_id] += 1
                    came_ms[event_id] = min(stamp_ms, came_ms.get(event_id, stamp_ms))
                    moved_s = time.monotonic()
            if time.monotonic() - moved_s > _REQUEST_S:
                raise Stalled(f"only {seen.total()} of {records} outputs of {topic} can be read back")
    finally:
        consumer.close()
    return Verdict(sum(one not in seen for one in expected), seen.total() - len(seen), came_ms)
