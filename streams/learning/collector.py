"""Feedback from its topic into the data sets, each record once.

    predictions  ->  index
    feedback     ->  understood  ->  joined to their events  ->  dead letters, acknowledged
                                                             ->  versions of the tasks' data sets, durable
                                                             ->  checkpoint, durable  ->  offsets committed

What a process that ends in the middle has not finished is read again by the next one, from the checkpoint; records that
are in a task's newest version already are passed over. The committed offsets only show others how far we are.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from models.durable import held
from models.learning.store import ReadUpTo
from models.releases import home
from streams.envelope import dead_letter
from streams.events import Coordinates, Output, Rejected
from streams.exits import BrokerUnavailable
from streams.grants import MissingTopics, grants, require_access
from streams.intake import Record
from streams.learning.checkpoint import Checkpoint, load_checkpoint
from streams.learning.feedback import Heard, KafkaRecord, Listener
from streams.learning.following import Progress, follow_predictions
from streams.learning.joining import join
from streams.learning.outbox import send_letters
from streams.learning.prediction_index import PredictionIndex
from streams.learning.source_texts import SourceTexts
from streams.learning.task_intake import Taken, TaskIntake, Turned
from streams.reading import TopicReader
from streams.security import librdkafka_config
from streams.settings import Settings

log = logging.getLogger(__name__)

CHUNK_RECORDS, CHUNK_BYTES = 20_000, 64 << 20  # of feedback that go into one version
INDEX_FILE, LOCK_FILE = "predictions.sqlite", ".collecting"


@dataclass
class Collected:
    """What one collection took in. `ends` counts by task what became of records; `refused` those of no task."""

    records: int = 0
    lost: int = 0
    ends: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    refused: Counter[str] = field(default_factory=Counter)
    versions: dict[str, int] = field(default_factory=dict)
    waiting: int = 0


class Collector:
    """The one process that writes the data sets. A context manager: it holds a lock, a consumer and the index.

    Args:
        settings: brokers, topics, sources and bounds.
        folder: of all tasks' data sets; by default `home()/learning`.
        clock: the wall clock, seconds since 1970.
        progress: told how far it is.

    Raises:
        AccessRefused, BrokerUnavailable: the broker does not allow what is needed, or does not answer.
        Busy: another collector is at work in this folder.
        IntegrityError: what was collected before is damaged.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path | None = None,
        clock: Callable[[], float] = time.time,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        self._settings = settings
        self._folder = folder or home() / "learning"
        self._clock = clock
        self._progress = progress
        self._group = f"{settings.broker.group}-feedback"
        self._listener = Listener(settings)
        self._chat = frozenset(name for name, source in settings.active_sources.items() if source.kind == "chat")

    def __enter__(self) -> Self:
        try:
            require_access(self._settings, grants(self._settings, "feedback"))
        except MissingTopics as error:
            raise BrokerUnavailable(str(error)) from None
        with ExitStack() as stack:
            stack.enter_context(held(self._folder / LOCK_FILE, "a collector of feedback"))
            index = PredictionIndex(self._folder / INDEX_FILE, self._settings.feedback.index_rows)
            self._index = stack.enter_context(index)
            self._texts = stack.enter_context(SourceTexts(self._settings, self._group, self._clock))
            config = {"group.id": self._group, "enable.auto.commit": False, "log_level": 0}
            self._committer = Consumer(librdkafka_config(self._settings.broker) | config)
            stack.callback(self._committer.close)
            self._tasks = {task: TaskIntake(self._settings, task, self._folder) for task in self._settings.tasks}
            self._checkpoint = load_checkpoint(self._folder)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._open.close()

    def collect(self) -> Collected:
        """Take in all feedback that is there now, and look again for what is waiting.

        Raises:
            AccessRefused, BrokerUnavailable, DeliveryFailed: a topic cannot be read or written.
            ReleaseNotFound: nothing says which labels a task has.
        """
        follow_predictions(self._settings, self._index, self._group, self._clock(), self._progress)
        done = Collected()
        for records, read in self._chunks(done):
            self._take(records, read, done)
        done.waiting = sum(len(task.waiting("")) for task in self._tasks.values())
        return done

    def _chunks(self, done: Collected) -> Iterator[tuple[list[KafkaRecord], ReadUpTo]]:
        """The feedback that was not taken in yet, and how far it is read with it; the last part may be empty."""
        name = self._settings.topics.feedback
        reader = TopicReader(self._settings, name, self._group)
        ranges = {part: (self._start(done, reader.id, part, low), high) for part, (low, high) in reader.ranges.items()}
        total = sum(high - low for low, high in ranges.values())
        offsets = {part: low for part, (low, _) in ranges.items()}
        records, size = list[KafkaRecord](), 0
        for message in reader.messages(ranges):
            record = KafkaRecord.of(message)
            records.append(record)
            size += len(record.value or b"")
            offsets[record.partition] = record.offset + 1
            done.records += 1
            if len(records) >= CHUNK_RECORDS or size >= CHUNK_BYTES:
                yield records, ReadUpTo(topic=name, topic_id=reader.id, offsets=offsets)
                self._progress("feedback", done.records, total)
                records, size = [], 0
        ends = {part: max(low, high) for part, (low, high) in ranges.items()}
        yield records, ReadUpTo(topic=name, topic_id=reader.id, offsets=ends)

    def _start(self, done: Collected, its_id: str, partition: int, low: int) -> int:
        if self._checkpoint is None:
            return low
        heads = {name: task.head for name, task in self._tasks.items()}
        start = self._checkpoint.start(heads, self._settings.topics.feedback, its_id, partition)
        if 0 < start < low:
            done.lost += low - start
            topic = self._settings.topics.feedback
            log.error("%s/%d: retention removed %d records before they were read", topic, partition, low - start)
        return max(start, low)

    def _take(self, records: list[KafkaRecord], read: ReadUpTo, done: Collected) -> None:
        """Take in one part, up to where it is safe to go on behind it."""
        now_s = self._clock()
        heard, turned, rejected = self._understood(records, read, now_s)
        joined = join(
            [one for one, _ in heard],
            lambda task, key: self._tasks[task].labelled(key),
            self._index,
            self._texts,
            self._chat,
        )
        taken = defaultdict[str, list[Taken]](list)
        for (one, since_s), result in zip(heard, joined, strict=True):
            taken[one.task].append(Taken(one, result, since_s))
        letters = [dead_letter(record, "feedback", why, now_s) for record, why in rejected]
        for name, task in self._tasks.items():
            refused = task.absorb(taken[name], turned[name], now_s)
            letters += [_letter(one, now_s) for one in refused]
        send_letters(self._settings, letters)
        self._make_durable(read, Counter(why.error for _, why in rejected), done, now_s)

    def _understood(
        self, records: list[KafkaRecord], read: ReadUpTo, now_s: float
    ) -> tuple[list[tuple[Heard, float]], dict[str, list[Turned]], list[tuple[Record, Rejected]]]:
        """What is to be taken in, with the moment it came: the records that wait first, then the new ones. Also what
        no longer waits, as it is not understood any more; and the new records that are not understood."""
        heard, rejected = list[tuple[Heard, float]](), list[tuple[Record, Rejected]]()
        turned = defaultdict[str, list[Turned]](list)
        for name, task in self._tasks.items():
            for record, since_s in task.waiting(read.topic):
                verdict = self._listener.understand(record, now_s)
                if isinstance(verdict, Heard):
                    heard.append((verdict, since_s))
                else:
                    turned[name].append(Turned(record, "not_understood", f"{verdict.error}: {verdict.message}"))
        for record in records:
            verdict = self._listener.understand(record, now_s)
            if isinstance(verdict, Rejected):
                if not self._told(record, read):
                    rejected.append((record, verdict))
            elif not self._tasks[verdict.task].has(read.topic, read.topic_id, verdict.at):
                heard.append((verdict, now_s))
        return heard, turned, rejected

    def _told(self, record: Record, read: ReadUpTo) -> bool:
        """Whether a record was refused before: it is read again for the sake of a task whose version is gone."""
        before = self._checkpoint
        return before is not None and record.offset < before.read.start(read.topic, read.topic_id, record.partition)

    def _make_durable(self, read: ReadUpTo, refused: Counter[str], done: Collected, now_s: float) -> None:
        """Versions, then the checkpoint, then the offsets: each only when what it stands for is on the disk."""
        for name, task in self._tasks.items():
            done.ends[name].update(task.ends)
            if (version := task.write(read, now_s)) is not None:
                done.versions[name] = version.version
        done.refused.update(refused)
        before = self._checkpoint
        heads = {name: task.head.version for name, task in self._tasks.items() if task.head is not None}
        self._checkpoint = Checkpoint(
            read=read,
            versions=(before.versions if before else {}) | heads,
            refused=Counter(before.refused if before else {}) + refused,
        )
        if self._checkpoint != before:
            self._checkpoint.save(self._folder)
        offsets = [TopicPartition(read.topic, part, offset) for part, offset in read.offsets.items()]
        try:
            self._committer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise BrokerUnavailable(f"group {self._group}: offsets not committed: {error.args[0].str()}") from None


def _letter(turned: Turned, now_s: float) -> Output:
    record = turned.record
    at = Coordinates(record.topic, record.partition, record.offset)
    error = "".join(word.capitalize() for word in turned.end.split("_"))
    return dead_letter(record, "feedback", Rejected(at, "feedback", error, f"{at}: {turned.why}"), now_s)
