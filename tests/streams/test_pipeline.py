"""A source's pipeline: exactly one end for every record, finished in order, after the broker has said yes."""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from confluent_kafka import Producer
from faust.types import TP

from streams import metrics
from streams.consuming import Slice
from streams.embedded import EmbeddedBroker
from streams.events import Coordinates
from streams.exits import BrokerUnavailable
from streams.lineage import Redriven, headers_of
from streams.pipeline import SourcePipeline
from streams.settings import Settings
from tests.streams.fakes import LABELS, FakeModel
from tests.streams.pipelines import GOOD, numbered, offsets, risk, running, slice_of, tone, values
from tests.streams.records import FakeRecord
from tests.streams.wire import Ends, free_port

MakeSettings = Callable[..., Settings]


async def test_every_record_has_exactly_one_end(embedded: EmbeddedBroker, settings_at: MakeSettings) -> None:
    settings = settings_at(embedded.bootstrap)
    good = numbered(6)
    batch = [good[0], b"\xff not utf-8", good[1], GOOD % (90, b"poison"), good[2], b'{"id": "e"}', *good[3:], b"[]"]
    async with running(settings, risk(poison=["poison"])) as one:
        await one.pipeline.accept(slice_of(batch, first=100))
        await one.until_finished(1)
    predictions, dead = await values(settings, "predictions"), await values(settings, "dead_letters")
    assert offsets(dead) == [101, 103, 105, 109]
    assert offsets(predictions) == [100, 102, 104, 106, 107, 108]
    assert {one["source"]["offset"]: (one["stage"], one["error"]) for one in dead} == {
        101: ("intake", "NotUtf8"), 103: ("scoring", "ModelFailed"), 105: ("intake", "EmptyText"),
        109: ("intake", "WrongShape"),
    }  # fmt: skip
    for letter in dead:
        assert base64.b64decode(letter["value_base64"]) == batch[letter["source"]["offset"] - 100]


async def test_results_are_those_of_their_own_records(embedded: EmbeddedBroker, settings_at: MakeSettings) -> None:
    """Bad records in between shift texts against records; the label says whose text was scored."""
    settings, model = settings_at(embedded.bootstrap), risk()
    texts = ["x" * (1 + 7 * place % 19) for place in range(60)]
    batch = [b"bad" if place % 7 == 3 else GOOD % (place, text.encode()) for place, text in enumerate(texts)]
    async with running(settings, model) as one:
        for first in range(0, 60, 13):
            await one.pipeline.accept(slice_of(batch[first : first + 13], first))
        await one.until_finished(5)
    predictions = await values(settings, "predictions")
    assert offsets(predictions) == [place for place in range(60) if place % 7 != 3]
    for prediction in predictions:
        offset = prediction["source"]["offset"]
        assert prediction["event_id"] == str(offset)
        assert prediction["label"] == model.label_of(texts[offset])
    alerts = await values(settings, "alerts")
    assert offsets(alerts) == offsets([one for one in predictions if one["label"] == "bad"])


@pytest.mark.parametrize("explain_s", [None, 20.0])
async def test_alerts_carry_the_words_they_rest_on_if_asked_for(
    embedded: EmbeddedBroker, settings_at: MakeSettings, explain_s: float | None
) -> None:
    settings = settings_at(embedded.bootstrap)
    async with running(settings, risk(), explain_s=explain_s) as one:
        await one.pipeline.accept(slice_of([b"no event", GOOD % (1, b"a bad day"), GOOD % (2, b"calm")], first=7))
        await one.until_finished(1)
    (alert,) = await values(settings, "alerts")
    told = [(word["start"], word["end"], word["text"]) for word in alert["evidence"].get("words", [])]
    assert told == ([] if explain_s is None else [(2, 5, "bad")])
    assert alert["evidence"]["text"] == "a bad day"
    assert offsets(await values(settings, "predictions")) == [8, 9]


async def test_an_event_that_breaks_one_model_has_no_outputs_of_the_other(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    settings = settings_at(embedded.bootstrap)
    batch = [GOOD % (0, b"fine"), GOOD % (1, b"poison"), GOOD % (2, b"fine too")]
    async with running(settings, risk(poison=["poison"]), tone()) as one:
        await one.pipeline.accept(slice_of(batch))
        await one.until_finished(1)
    predictions = await values(settings, "predictions")
    assert Counter((each["source"]["offset"], each["task"]) for each in predictions) == Counter(
        [(0, "risk"), (0, "tone"), (2, "risk"), (2, "tone")]
    )
    assert offsets(await values(settings, "dead_letters")) == [1]


async def test_tasks_of_one_model_are_scored_in_one_run(embedded: EmbeddedBroker, settings_at: MakeSettings) -> None:
    settings = settings_at(embedded.bootstrap)
    model = FakeModel(heads={"risk": LABELS, "tone": ("up", "down")}, poison=["poison"])
    batch = [GOOD % (0, b"bad and up"), GOOD % (1, b"poison!!!!"), GOOD % (2, b"odd & down")]
    async with running(settings, model) as one:
        await one.pipeline.accept(slice_of(batch))
        await one.until_finished(1)
    predictions = await values(settings, "predictions")
    assert Counter((each["source"]["offset"], each["task"], each["label"]) for each in predictions) == Counter(
        [(0, "risk", "bad"), (0, "tone", "up"), (2, "risk", "odd"), (2, "tone", "down")]
    )
    (letter,) = await values(settings, "dead_letters")
    assert (letter["source"]["offset"], letter["error"]) == (1, "ModelFailed")
    assert "news/0/1: task risk+tone: ValueError: a shape the model cannot take" in letter["message"]
    assert [text for text in map(" | ".join, model.batches) if text.count("|") == 2] == [
        "bad and up | poison!!!! | odd & down"
    ]


async def test_a_source_gets_only_the_tasks_it_asks_for(embedded: EmbeddedBroker, settings_at: MakeSettings) -> None:
    """Another source wants the model's other task."""
    settings = settings_at(embedded.bootstrap)
    async with running(settings, FakeModel(heads={"risk": LABELS, "tone": LABELS}), tasks=["tone"]) as one:
        await one.pipeline.accept(slice_of(numbered(5)))
        await one.until_finished(1)
    predictions = await values(settings, "predictions")
    assert [each["task"] for each in predictions] == ["tone"] * 5
    assert offsets(predictions) == list(range(5))


async def test_a_slice_of_nothing_but_rubbish_is_finished_too(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    settings, model = settings_at(embedded.bootstrap), risk()
    async with running(settings, model) as one:
        await one.pipeline.accept(slice_of([b"\xff"] * 20))
        await one.until_finished(1)
    assert offsets(await values(settings, "dead_letters")) == list(range(20))
    assert model.batches == []


async def test_what_is_too_large_for_any_letter_ends_as_a_letter_all_the_same(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    """A topic may take larger records than the source should hold; the worker must not end at them again and again."""
    settings = settings_at(embedded.bootstrap)
    async with running(settings, risk()) as one:
        await one.pipeline.accept(slice_of([b"\xff" * 10_000_000, *numbered(2, 1)]))
        await one.until_finished(1)
    (letter,) = await values(settings, "dead_letters")
    assert (letter["source"]["offset"], letter["error"], letter["truncated"]) == (0, "TooLarge", True)
    assert offsets(await values(settings, "predictions")) == [1, 2]


async def test_a_letter_says_which_release_failed_and_how_often(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    settings = settings_at(embedded.bootstrap)
    model = FakeModel(poison=["poison"], cannot_encode=["unreadable"])
    async with running(settings, model) as one:
        await one.pipeline.accept(slice_of([GOOD % (0, b"poison"), GOOD % (1, b"unreadable"), b"rubbish"]))
        await one.until_finished(1)
    letters = {one["source"]["offset"]: one for one in await values(settings, "dead_letters")}
    assert {at: (one["stage"], one["attempts"], one["release"]) for at, one in letters.items()} == {
        0: ("scoring", 4, "fake-1"), 1: ("scoring", 1, "fake-1"), 2: ("intake", 1, None),
    }  # fmt: skip


async def test_however_often_an_event_is_redriven_its_outputs_have_the_same_ids(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    """But for its dead letters: each failure is a letter of its own, and a copy of one redrive has that one's."""
    settings = settings_at(embedded.bootstrap)
    nameless = b'{"text": "bad news", "symbols": ["ACME"]}'
    values_in, first = [nameless, b"rubbish"], "2026-02-01T00:00:00.000Z"
    records = [FakeRecord(value, offset) for offset, value in enumerate(values_in)]
    for times in (1, 1, 2):  # twice by accident, then once more
        for place, value in enumerate(values_in):
            origin = Redriven(Coordinates("news", 0, place), times, first, 1_700_000_000_000)
            records.append(FakeRecord(value, len(records), headers=headers_of(origin, ())))
    async with running(settings, risk()) as one:
        await one.pipeline.accept(Slice(TP("news", 0), records, generation_id=1))
        await one.until_finished(1)
    predictions = await values(settings, "predictions")
    ids = [one["id"] for one in predictions]
    assert offsets(predictions) == [0, 2, 4, 6], "where they lie now is said too"
    assert ids[0] == "news/0/0/risk"
    assert len(set(ids[1:])) == 1 and ids[1].startswith("news/0/0/redriven-") and ids[1].endswith("/risk")
    assert {one["event_id"] for one in predictions} == {"news/0/0"}
    assert [one["event_time"] for one in predictions[1:]] == ["2023-11-14T22:13:20.000Z"] * 3
    assert len({one["id"] for one in await values(settings, "alerts")}) == 2
    letters = await values(settings, "dead_letters")
    assert [(one["redrives"], one["origin"]) for one in letters] == [(times, "news/0/1") for times in (0, 1, 1, 2)]
    assert len({one["id"] for one in letters}) == 3
    assert [one["first_seen_at"] for one in letters[1:]] == [first] * 3


async def test_slices_are_finished_in_order_and_only_when_their_outputs_are_there(
    embedded: EmbeddedBroker, settings_at: MakeSettings
) -> None:
    settings = settings_at(embedded.bootstrap)
    ends = Ends(embedded.bootstrap, [settings.topics.predictions, settings.topics.dead_letters])
    there = list[int]()

    def on_finish(one: Slice) -> None:
        there.append(ends.total())

    slices = [slice_of([*numbered(9, 10 * turn), b"bad"], 10 * turn) for turn in range(12)]
    async with running(settings, risk(), on_finish=on_finish) as one:
        for each in slices:
            await one.pipeline.accept(each)
        await one.until_finished(12)
    ends.close()
    assert sorted(one.finished, key=first_offset) == slices
    assert all(count >= 10 * finished for finished, count in enumerate(there, start=1))


def first_offset(one: Slice) -> int:
    return one.first


async def test_the_outputs_of_a_partition_keep_its_order(embedded: EmbeddedBroker, settings_at: MakeSettings) -> None:
    """Slices of two partitions whose texts are scored at different times; one key, so one output partition."""
    settings = settings_at(embedded.bootstrap)
    slices = [slice_of(numbered(5, 5 * turn), 5 * turn, partition) for turn in range(10) for partition in (0, 1)]
    async with running(settings, risk(), in_flight=20) as one:
        await accept_all(one.pipeline, slices, [])
        await one.until_finished(20)
    sources = [one["source"] for one in await values(settings, "predictions")]
    for partition in (0, 1):
        assert [one["offset"] for one in sources if one["partition"] == partition] == list(range(50))


async def accept_all(pipeline: SourcePipeline, slices: Sequence[Slice], accepted: list[Slice]) -> None:
    for one in slices:
        await pipeline.accept(one)
        accepted.append(one)


async def until_still(accepted: list[Slice], quiet_s: float = 0.3) -> int:
    """How many were accepted once nothing more is."""
    count = -1
    while len(accepted) != count:
        count = len(accepted)
        await asyncio.sleep(quiet_s)
    return count


async def test_a_slow_model_holds_back_what_is_accepted(embedded: EmbeddedBroker, settings_at: MakeSettings) -> None:
    gate = threading.Semaphore(0)
    settings, accepted, in_flight = settings_at(embedded.bootstrap), list[Slice](), 3
    slices = [slice_of(numbered(5, 5 * turn), 5 * turn) for turn in range(40)]
    async with running(settings, risk(gate), in_flight=in_flight) as one:
        accepting = asyncio.create_task(accept_all(one.pipeline, slices, accepted))
        assert 1 <= await until_still(accepted) <= in_flight
        assert one.finished == []
        gate.release(1000)
        await one.until_finished(40)
        await accepting
    assert sorted(one.finished, key=first_offset) == slices
    assert offsets(await values(settings, "predictions")) == list(range(200))


async def test_nothing_is_finished_while_the_broker_is_away(settings_at: MakeSettings) -> None:
    settings, accepted, in_flight = settings_at(f"127.0.0.1:{free_port()}"), list[Slice](), 2
    slices = [slice_of(numbered(5, 5 * turn), 5 * turn) for turn in range(40)]
    async with running(settings, risk(), in_flight=in_flight, timeout_s=2.0) as one:
        accepting = asyncio.create_task(accept_all(one.pipeline, slices, accepted))
        assert await until_still(accepted) == in_flight
        with pytest.raises(BrokerUnavailable, match=settings.topics.predictions):
            await asyncio.wait_for(asyncio.shield(one.loops[0]), 20)
        accepting.cancel()
    assert one.finished == []


# ---- shedding


@pytest.mark.parametrize("shed_after_s", [None, 60.0])
async def test_what_waited_too_long_is_shed_whole_by_policy_alone(
    embedded: EmbeddedBroker, settings_at: MakeSettings, shed_after_s: float | None
) -> None:
    settings, now_ms = settings_at(embedded.bootstrap), int(time.time() * 1000)
    Producer({"bootstrap.servers": embedded.bootstrap}).list_topics(settings.topics.shed, 10)  # makes it
    ends, safe = Ends(embedded.bootstrap, [settings.topics.shed]), list[int]()
    headers = [("trace", b"abc")]
    records = [
        FakeRecord(b"\xff" if place == 3 else GOOD % (place, b"text"), place, "news",
                   timestamp=now_ms - (3_600_000 if place < 5 else 0), key=b"k", headers=headers)
        for place in range(8)
    ]  # fmt: skip
    before = metrics.REGISTRY.get_sample_value("streamgauge_shed_total", {"source": "news"}) or 0.0
    async with running(
        settings, risk(), shed_after_s=shed_after_s, on_finish=lambda one: safe.append(ends.total())
    ) as one:
        await one.pipeline.accept(Slice(TP("news", 0), records, generation_id=1))
        await one.until_finished(1)
    ends.close()
    gone = [] if shed_after_s is None else [0, 1, 2, 4]
    letters = await values(settings, "shed")
    assert offsets(letters) == gone
    assert safe == [len(gone)]  # acknowledged before its slice was finished
    assert offsets(await values(settings, "predictions")) == [n for n in range(8) if n != 3 and n not in gone]
    assert offsets(await values(settings, "dead_letters")) == [3]
    for letter in letters:
        assert (letter["stage"], letter["error"]) == ("shed", "WaitedTooLong")
        assert base64.b64decode(letter["value_base64"]) == records[letter["source"]["offset"]].value
        assert base64.b64decode(letter["key_base64"]) == b"k"
        assert letter["headers_base64"] == [["trace", base64.b64encode(b"abc").decode()]]
    after = metrics.REGISTRY.get_sample_value("streamgauge_shed_total", {"source": "news"})
    assert after == before + len(gone)
