"""Where a worker can be struck: every step of an event, reached by wrapping the product from outside.

`POINTS` says for each step what to wrap, how often it is passed in a run, and which kinds of fault make sense there. A
step that is renamed raises an `AttributeError` at the start of the worker, so that no point is ever missed unnoticed.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, Producer

from streams import consuming, publishing
from streams.batching import MicroBatcher
from streams.consuming import Slice, SliceConsumer
from streams.intake import Intake
from streams.pipeline import SourcePipeline
from streams.settings import load_settings
from streams.surge_pipeline import SurgePipeline
from streams.surge_state import SurgeState
from tests.crash.faults import Fault, Kind
from tests.crash.placing import Place, after, before
from tests.streams.fakes import FakeModel

COMMITS_WHILE_WITHHELD = 6
WITHHELD_S = 8.0  # at most, when nothing is committed any more


@dataclass(frozen=True)
class Point:
    """Where to strike, at which passing of a run (first and last that may be drawn), and how."""

    place: Place
    passings: tuple[int, int]
    kinds: tuple[Kind, ...] = ("exit", "kill")
    ends_with: tuple[int, ...] = ()  # exit codes when it is not the fault that ends the process


class _Refused:
    """Stands for the message of a delivery report, which only librdkafka can make."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def topic(self) -> str:
        return self._topic


def _producing(strike: Callable[[Fault, Callable[..., None], tuple[Any, ...]], None], *outputs: str) -> Place:
    """Strike where records of these outputs (any, without them) are handed to librdkafka."""

    def place(fault: Fault) -> None:
        topics = load_settings().topics
        wanted = {getattr(topics, name) for name in outputs}

        class FaultyProducer(Producer):
            def produce(self, topic: str, *args: Any) -> None:
                send = super().produce
                if not (topic in wanted if wanted else topic != topics.surge_state) or not fault.due():
                    send(topic, *args)
                    return
                fault.say()
                strike(fault, send, (topic, *args))

        setattr(publishing, "Producer", FaultyProducer)  # noqa: B010 - not a name that the module offers

    return place


def _end_after_sending(fault: Fault, send: Callable[..., None], record: tuple[Any, ...]) -> None:
    send(*record)
    time.sleep(0.005)  # beyond the producer's linger: on its way, and no report served
    fault.end()


def _end_between(fault: Fault, send: Callable[..., None], record: tuple[Any, ...]) -> None:
    fault.end()


def _withhold(fault: Fault, send: Callable[..., None], record: tuple[Any, ...]) -> None:
    fault.end_after(WITHHELD_S)
    original, commits = consuming._ConsumerThread._commit, itertools.count(1)

    async def commit(self: Any, offsets: Any) -> bool:
        done = bool(await original(self, offsets))
        if next(commits) >= COMMITS_WHILE_WITHHELD:
            fault.end()
        return done

    consuming._ConsumerThread._commit = commit  # type: ignore[method-assign]


def _refuse(fault: Fault, send: Callable[..., None], record: tuple[Any, ...]) -> None:
    topic, *_, report = record
    report(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), _Refused(topic))


def _during_commit(fault: Fault) -> None:
    """Strike while the request is on its way: up to three milliseconds after it was begun."""
    original = consuming._ConsumerThread._commit

    async def commit(self: Any, offsets: Any) -> bool:
        if not fault.due():
            return bool(await original(self, offsets))
        fault.say()
        begun = asyncio.ensure_future(original(self, offsets))
        await asyncio.sleep(fault.occurrence % 4 / 1000)
        fault.end()
        return bool(await begun)

    consuming._ConsumerThread._commit = commit  # type: ignore[method-assign]


def _before_the_state_is_committed(fault: Fault) -> None:
    original = SurgeState._await

    def await_step(self: SurgeState, step: Callable[[float], Any], what: str, setting: str, limit_s: float) -> None:
        if what == "committed":
            fault.strike()
        original(self, step, what, setting, limit_s)

    SurgeState._await = await_step  # type: ignore[method-assign]


UNEXPECTED, REFUSED = (70,), (2,)

POINTS: dict[str, Point] = {
    "slice-taken": Point(before(SourcePipeline, "accept"), (5, 25)),
    "decoded": Point(after(Intake, "decode"), (5, 25)),
    "waiting-in-the-batcher": Point(after(MicroBatcher, "add"), (5, 25)),
    "in-inference": Point(before(FakeModel, "run"), (5, 25)),
    "scored": Point(after(SourcePipeline, "_outputs"), (5, 25)),
    "between-sends": Point(_producing(_end_between), (40, 300)),
    "some-acknowledged": Point(_producing(_withhold), (40, 300), ("withhold",)),
    "dead-letter-sent": Point(_producing(_end_after_sending, "dead_letters"), (2, 10)),
    "acknowledged": Point(before(Slice, "finish"), (5, 25)),
    "watermark-moved": Point(after(SliceConsumer, "release"), (5, 25)),
    "during-commit": Point(_during_commit, (3, 12)),
    "committed": Point(after(consuming._ConsumerThread, "_commit"), (3, 12)),
}
FAILURES: dict[str, Point] = {  # nothing is killed: the product has to end itself
    "agent-raises": Point(before(SourcePipeline, "accept"), (5, 25), ("raise",), UNEXPECTED),
    "slice-raises": Point(after(SourcePipeline, "_outputs"), (5, 25), ("raise",), UNEXPECTED),
    "surge-agent-raises": Point(after(SurgePipeline, "_observe"), (3, 12), ("raise",), UNEXPECTED),
    "commit-raises": Point(before(consuming._ConsumerThread, "_commit"), (3, 12), ("raise",), UNEXPECTED),
    "output-refused": Point(_producing(_refuse), (40, 300), ("refuse",), REFUSED),
    "dead-letter-refused": Point(_producing(_refuse, "dead_letters"), (2, 10), ("refuse",), REFUSED),
}
SURGE_POINTS: dict[str, Point] = {
    "surge-slice-taken": Point(before(SurgePipeline, "accept"), (3, 12)),
    "surge-observed": Point(after(SurgePipeline, "_observe"), (3, 12)),
    "surge-alerts-acknowledged": Point(before(SurgeState, "write"), (3, 12)),
    "surge-between-states": Point(before(SurgeState, "_produce"), (10, 40)),
    "surge-state-written": Point(_before_the_state_is_committed, (3, 12)),
    "surge-saved": Point(after(SurgeState, "write"), (3, 12)),
    "surge-recovered": Point(after(SurgePipeline, "_recover"), (1, 1)),
}
ALL_POINTS = POINTS | FAILURES | SURGE_POINTS
