"""The surge detector's pipeline on the embedded broker: what it publishes, keeps, recovers and refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from faust.types import TP
from pydantic import TypeAdapter

from streams import metrics
from streams.consuming import Slice
from streams.embedded import EmbeddedBroker, embedded_broker
from streams.events import Alert, Output
from streams.intake import Unreadable
from streams.publishing import Publisher
from streams.settings import OUTPUT_TOPICS, Settings
from streams.surge_pipeline import SurgePipeline
from streams.surge_state import META_KEY, read_compacted
from tests.streams.fakes import Clock
from tests.streams.records import FakeRecord
from tests.streams.wire import read_all

MakeSettings = Callable[..., Settings]
START_S = 1_760_000_100.0  # the start of a bucket
HITS = 12  # in one window, with no past to compare: enough for a surge


def observation(number: int, entity: object = "ACME", hit: object = True, **other: object) -> bytes:
    value: dict[str, Any] = {
        "id": f"news/0/{number}/observation/0", "entity": entity, "event_time_s": START_S + number, "hit": hit,
        "score": 0.9, "text": f"headline {number}", "release": "sentiment-1",
    }  # fmt: skip
    return orjson.dumps(value | other)


def slice_of(settings: Settings, values: Sequence[bytes | None], first: int = 0, generation: int = 1) -> Slice:
    topic = settings.topics.observations
    records = [FakeRecord(value, first + place, topic, 0) for place, value in enumerate(values)]
    return Slice(TP(topic, 0), records, generation)


@asynccontextmanager
async def pipeline(settings: Settings) -> AsyncIterator[tuple[SurgePipeline, list[Slice]]]:
    topics, finished = {name: getattr(settings.topics, name) for name in OUTPUT_TOPICS}, list[Slice]()
    publisher = Publisher({"bootstrap.servers": settings.broker.bootstrap, "log_level": 0}, topics, 30)
    try:
        yield SurgePipeline(settings, publisher, finished.append, Clock()), finished
    finally:
        await asyncio.to_thread(publisher.close, 5.0)


async def accept(settings: Settings, *slices: Slice) -> list[Slice]:
    """A pipeline of its own takes these slices in turn."""
    async with pipeline(settings) as (one, finished):
        for each in slices:
            await asyncio.wait_for(one.accept(each), 20)
    return finished


async def outputs(settings: Settings, topic: str) -> list[dict[str, Any]]:
    found = await asyncio.to_thread(read_all, settings.broker.bootstrap, topic, 1)
    return [orjson.loads(message.value() or b"") for message in found]


@pytest.fixture
def settings(settings_at: MakeSettings) -> Iterator[Settings]:
    """Settings whose surges open at `HITS` hits at the latest."""
    made = settings_at("127.0.0.1:1")
    made = made.model_copy(update={"surge": made.surge.model_copy(update={"min_support": 6, "significance": 0.02})})
    names = made.topics
    with embedded_broker(dict.fromkeys((names.alerts, names.dead_letters, names.surge_state), 1)) as broker:
        yield made.model_copy(update={"broker": made.broker.model_copy(update={"bootstrap": broker.bootstrap})})


async def test_a_surge_is_published_as_an_alert(settings: Settings) -> None:
    one = slice_of(settings, [observation(n) for n in range(HITS)])
    assert await accept(settings, one) == [one]
    (alert,) = await outputs(settings, settings.topics.alerts)
    TypeAdapter(Alert).validate_python(alert, strict=True)
    assert (alert["kind"], alert["state"], alert["subject"]) == ("surge", "open", "ACME")
    assert (alert["task"], alert["label"], alert["release"]) == ("sentiment", "negative", "sentiment-1")
    hits = alert["evidence"]["counts"]["hits"]
    assert settings.surge.min_support <= hits <= HITS
    assert {headline["text"] for headline in alert["evidence"]["headlines"]} <= {f"headline {n}" for n in range(hits)}


async def test_the_alert_names_the_observation_that_opened_it(settings: Settings) -> None:
    """However the records were cut into slices: a redelivery, cut otherwise, must say the same."""
    values = [observation(n) for n in range(HITS)]
    values += [observation(n, "OTHER", hit=False) for n in range(20, 30)]
    await accept(settings, slice_of(settings, values))
    (alert,) = await outputs(settings, settings.topics.alerts)
    source = {"name": "observations", "topic": settings.topics.observations, "partition": 0}
    assert alert["source"] == source | {"offset": alert["evidence"]["counts"]["hits"] - 1}


WRONG_SHAPES: list[bytes | None] = [
    None, b"", b"\xff", b"{", b"[]", b"{}", observation(1, entity=7), observation(1, hit="perhaps"),
    observation(1, event_time_s="soon"), b"[" * 5000,
]  # fmt: skip
NOT_FINITE = [
    observation(1).replace(b'"event_time_s":1760000101.0', b'"event_time_s":' + number)
    for number in (b"NaN", b"Infinity", b"-Infinity")
] + [observation(1).replace(b'"score":0.9', b'"score":NaN')]


@pytest.mark.parametrize(
    "values", [WRONG_SHAPES, *([one] for one in NOT_FINITE)], ids=lambda values: repr(values)[-90:]
)
async def test_what_is_no_observation_becomes_a_dead_letter_and_stops_nothing(
    values: list[bytes | None], settings: Settings
) -> None:
    one = slice_of(settings, [observation(0), *values, *(observation(n) for n in range(2, HITS + 1))])
    assert await accept(settings, one) == [one]
    letters = await outputs(settings, settings.topics.dead_letters)
    assert [letter["source"]["offset"] for letter in letters] == list(range(1, 1 + len(values)))
    assert {(letter["source"]["name"], letter["error"]) for letter in letters} == {("observations", "WrongShape")}
    assert len(await outputs(settings, settings.topics.alerts)) == 1


async def test_what_could_not_be_read_becomes_a_dead_letter_with_the_reason(settings: Settings) -> None:
    one = slice_of(settings, [Unreadable("BatchTooLarge", "it expands")])
    assert await accept(settings, one) == [one]
    (letter,) = await outputs(settings, settings.topics.dead_letters)
    assert (letter["error"], letter["truncated"]) == ("BatchTooLarge", True) and "it expands" in letter["message"]


async def test_another_worker_goes_on_where_this_one_was(settings: Settings) -> None:
    """Neither sees enough of them alone."""
    half = settings.surge.min_support - 1
    await accept(settings, slice_of(settings, [observation(n) for n in range(half)]))
    assert await outputs(settings, settings.topics.alerts) == []
    again = slice_of(settings, [observation(n) for n in range(half, 2 * half)], first=half, generation=2)
    await accept(settings, again)
    assert [alert["state"] for alert in await outputs(settings, settings.topics.alerts)] == ["open"]


async def test_a_slice_that_comes_again_changes_nothing(settings: Settings) -> None:
    values = [observation(n) for n in range(HITS)]
    finished = await accept(settings, slice_of(settings, values), slice_of(settings, values, generation=2))
    assert len(finished) == 2  # it is finished again, so that its offset is committed
    assert len(await outputs(settings, settings.topics.alerts)) == 1


async def test_the_state_is_in_its_partition_with_the_progress_written_last(settings: Settings) -> None:
    await accept(settings, slice_of(settings, [observation(n, f"E{n}") for n in range(5)]))
    found = await asyncio.to_thread(read_all, settings.broker.bootstrap, settings.topics.surge_state, 1)
    assert {message.partition() for message in found} == {0}
    keys = [(message.key() or b"").decode() for message in found]
    assert keys[-1] == META_KEY
    assert set(keys[:-1]) == {f"entity/E{n}" for n in range(5)}


async def test_an_entity_by_the_name_of_the_meta_record_does_no_harm(settings: Settings) -> None:
    half = settings.surge.min_support - 1
    await accept(settings, slice_of(settings, [observation(n, META_KEY) for n in range(half)]))
    again = [observation(n, META_KEY) for n in range(half, 2 * half)]
    await accept(settings, slice_of(settings, again, first=half, generation=2))
    assert [alert["subject"] for alert in await outputs(settings, settings.topics.alerts)] == [META_KEY]


async def test_reading_a_compacted_topic(embedded: EmbeddedBroker, unique: Callable[[str], str]) -> None:
    topic, config = unique("state"), dict[str, object]({"bootstrap.servers": embedded.bootstrap})

    def record(epoch: int, at: int) -> bytes:
        return orjson.dumps({"epoch": epoch, "at": at, "state": None, "before": None})

    publisher = Publisher(config, {"surge_state": topic}, 30)
    writes = [("a", record(1, 5)), ("b", record(1, 5)), ("a", record(2, 3)), ("a", record(1, 9)), ("c", record(1, 1)),
              ("c", None), ("b", record(1, 7))]  # fmt: skip
    await (await publisher.send([Output("surge_state", key, value, 2) for key, value in writes]))
    await asyncio.to_thread(publisher.close, 5.0)
    found = await asyncio.to_thread(read_compacted, config, topic, 2, 20.0)
    assert found == {"a": record(2, 3), "b": record(1, 7)}  # not the late write of an earlier epoch
    assert await asyncio.to_thread(read_compacted, config, topic, 0, 20.0) == {}


async def test_what_is_forgotten_for_want_of_room_is_counted(settings: Settings) -> None:
    settings = settings.model_copy(update={"surge": settings.surge.model_copy(update={"max_entities": 2})})
    counted = metrics.SURGE_EVICTIONS.labels("entities")
    before = counted._value.get()
    await accept(settings, slice_of(settings, [observation(n, f"E{n}") for n in range(7)]))
    assert counted._value.get() - before == 5
