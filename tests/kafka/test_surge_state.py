"""Surges after kills, zombies and compaction: workers that are hit again and again say and know what the detector does.

The long version is a command, `python -m tests.surge_state`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from faust.types import TP

from streams.broker import KafkaBroker
from streams.consuming import Slice
from streams.publishing import Publisher
from streams.security import librdkafka_config
from streams.settings import OUTPUT_TOPICS, Settings
from streams.surge_pipeline import SurgePipeline
from streams.surge_state import Fenced, SurgeState, read_compacted
from streams.topics import create_topics
from tests.kafka.harness import configure
from tests.streams.records import FakeRecord
from tests.streams.wire import Ends, read_all
from tests.surge_state import arguments, compact_often, observations, oracle, published, run
from tests.whereabouts import SURE

SLICE, COMPACTED_S = 20, 60.0

pytestmark = pytest.mark.kafka


def test_alerts_and_state_after_kills_and_zombies_are_those_of_a_run_without(
    kafka: KafkaBroker, tiny_releases: dict[str, Path], tmp_path: Path
) -> None:
    given = ["--kills", "5", "--stops", "2", "--observations", "12000", "--seed", "5", "--json"]
    found = run(kafka.bootstrap, tmp_path, tiny_releases["sentiment"], arguments(given))
    print(f"\n{found}")
    assert found["alerts"] >= 40 and found["states"] >= 30, "too little happens for this to prove anything"
    assert (found["wrong_alerts"], found["wrong_states"]) == (0, 0), found["first_wrong"]
    # How much is, depends on how the machine shares itself between the log cleaner and the workers.
    assert found["state_records_left"] < found["state_records_written"] * 0.9, "hardly anything was compacted"
    assert found["exit_codes"].keys() <= {"-9", "0", "70"}


class Group:
    """Workers of one partition, each a pipeline in this process."""

    def __init__(self, settings: Settings, values: list[bytes]) -> None:
        self._settings, topic = settings, settings.topics.observations
        records = [FakeRecord(value, offset, topic, 0) for offset, value in enumerate(values)]
        self._cut = [records[at : at + SLICE] for at in range(0, len(records), SLICE)]
        self._tp = TP(topic, 0)
        self.finished = list[tuple[str, int]]()
        self._stack = AsyncExitStack()

    def worker(self, name: str) -> SurgePipeline:
        topics = {output: getattr(self._settings.topics, output) for output in OUTPUT_TOPICS}
        publisher = Publisher(librdkafka_config(self._settings.broker), topics, 30)
        self._stack.callback(publisher.close, 5.0)
        return SurgePipeline(self._settings, publisher, lambda one: self.finished.append((name, one.first // SLICE)))

    def slices(self, numbers: range, generation: int) -> list[Slice]:
        return [Slice(self._tp, self._cut[number], generation) for number in numbers]

    async def __aenter__(self) -> Group:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


def one_partition(settings_at: Callable[..., Settings], kafka: KafkaBroker) -> Settings:
    made = settings_at(kafka.bootstrap, partitions=1)
    tight = {"max_entities": 12, "cooldown_s": 600.0, "resolve_ratio": 1.2}
    made = made.model_copy(update={"surge": made.surge.model_copy(update=tight)})
    create_topics(made)
    return made


def compacted(settings: Settings) -> None:
    """Wait until the state topic holds hardly more than the newest record of each key."""
    at, topic, end_s = settings.broker.bootstrap, settings.topics.surge_state, time.monotonic() + COMPACTED_S
    ends = Ends(at, [topic], 1)
    while len(read_all(at, topic, 1)) > ends.total() / 4:
        assert time.monotonic() < end_s, f"not compacted within {COMPACTED_S} s"
        SurgeState(settings, 0).write({}, read_compacted(librdkafka_config(settings.broker), topic, 0, 20)["meta"])
        time.sleep(1.2)  # the age at which a segment is closed, and only closed ones are compacted
    ends.close()


async def test_a_zombie_cannot_put_an_old_state_over_a_newer_one(
    kafka: KafkaBroker, settings_at: Callable[..., Settings]
) -> None:
    settings = one_partition(settings_at, kafka)
    values = [value for _, value in observations(1200, 8)]
    producer = Producer({"bootstrap.servers": kafka.bootstrap, **SURE})
    for value in values:
        producer.produce(settings.topics.observations, value, partition=0)
    assert producer.flush(30) == 0
    await asyncio.to_thread(compact_often, kafka.bootstrap, settings.topics.surge_state)
    async with Group(settings, values) as group:
        first, second, third = group.worker("first"), group.worker("second"), group.worker("third")
        for one in group.slices(range(20), 1):
            await first.accept(one)
        for one in group.slices(range(19, 40), 2):  # its last offset had not been committed
            await second.accept(one)
        (late,) = group.slices(range(20, 21), 1)
        with pytest.raises(Fenced, match="another worker has taken it over"):
            await first.accept(late)
        await asyncio.to_thread(compacted, settings)
        for one in group.slices(range(40, 60), 3):
            await third.accept(one)
        assert ("first", 20) not in group.finished
    wanted, found = await asyncio.to_thread(oracle, settings), await asyncio.to_thread(published, settings)
    assert len(wanted.alerts) >= 4, "too little happens for this to prove anything"
    assert wanted.differences(found) == ([], [])


async def test_what_a_zombie_had_begun_to_write_is_never_read(
    kafka: KafkaBroker, settings_at: Callable[..., Settings]
) -> None:
    """Stopped in the middle of a transaction: the next owner ends it, before it reads."""
    settings = one_partition(settings_at, kafka)
    first = await asyncio.to_thread(SurgeState, settings, 0)
    await asyncio.to_thread(first.write, {"ACME": b'{"epoch":1,"at":1,"state":null,"before":null}'}, META_1)
    first._producer.begin_transaction()
    first._producer.produce(settings.topics.surge_state, META_9, b"meta", 0)
    assert await asyncio.to_thread(first._producer.flush, 10) == 0
    second = await asyncio.to_thread(SurgeState, settings, 0)
    entities, meta = await asyncio.to_thread(second.read)
    assert (set(entities), meta) == ({"ACME"}, META_1)
    with pytest.raises(Fenced):
        await asyncio.to_thread(first._await, first._producer.commit_transaction, "committed", "limit", 10.0)


async def test_a_state_whose_first_records_are_deleted_is_read_to_its_end(
    kafka: KafkaBroker, settings_at: Callable[..., Settings]
) -> None:
    """A topic that is also cut by time or by hand no longer begins at offset 0."""
    settings = one_partition(settings_at, kafka)
    state = await asyncio.to_thread(SurgeState, settings, 0)
    await asyncio.to_thread(state.write, {}, META_1)
    await asyncio.to_thread(state.write, {}, META_9)
    topic = settings.topics.surge_state
    await asyncio.to_thread(configure, kafka.bootstrap, "TOPIC", topic, cleanup_policy="compact,delete")
    part = TopicPartition(topic, 0, 2)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for done in admin.delete_records([part]).values():
        await asyncio.to_thread(done.result)
    assert await asyncio.to_thread(state.read) == ({}, META_9)


META_1, META_9 = (b'{"epoch":1,"next_offset":%d,"clocks":{},"late":0}' % offset for offset in (1, 9))
