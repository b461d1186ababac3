"""The product with one rule removed, by patching it from outside: tests that do not notice prove nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import faust
from confluent_kafka import KafkaError, Message

from streams import app as wiring
from streams import decisions, pipeline, publishing, worker
from streams.consuming import Slice, SliceConsumer
from streams.events import Output
from streams.publishing import Publisher
from streams.settings import BrokerSettings


@dataclass(frozen=True)
class Mutation:
    """A rule that is taken out."""

    what: str
    apply: Callable[[], None]


def _agents(body: Callable[[Any, Any], Coroutine[Any, Any, None]]) -> None:
    def add_agent(app: faust.App, topic: str, name: str, pipeline: Any, broker: BrokerSettings) -> None:
        async def agent(stream: Any) -> None:
            await body(stream, pipeline)

        app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw"), name=name)(agent)

    wiring._add_agent = add_agent


def _take() -> None:
    """`take` acknowledges what it has given out, and what is acknowledged counts as done, as in stock Faust."""

    async def body(stream: Any, pipeline: Any) -> None:
        async for events in stream.take_events(4, within=0.02):
            for event in events:
                await pipeline.accept(event.message)

    def ack(self: SliceConsumer, message: Any) -> bool:
        if isinstance(message, Slice) and not message.finished:
            message.finished = True
            self.release(message)
        return stock(self, message)

    stock = SliceConsumer.ack
    SliceConsumer.ack = ack  # type: ignore[method-assign]
    _agents(body)


def _exceptions_leave_the_agent() -> None:
    async def body(stream: Any, pipeline: Any) -> None:
        stream.enable_acks = False
        async for event in stream.events():
            await pipeline.accept(event.message)

    _agents(body)


def _crashes_of_tasks_are_ignored() -> None:
    def guarded(work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await work
            except Exception as error:
                print(f"{what} failed: {error!r}", flush=True)

        return asyncio.get_running_loop().create_task(run(), name=what)

    for module in (wiring, worker):
        assert hasattr(module, "guarded")
        setattr(module, "guarded", guarded)  # noqa: B010 - not a name that the modules offer


def _finished_before_the_outputs_are_acknowledged() -> None:
    original = Publisher.send

    async def send(self: Publisher, outputs: Sequence[Output]) -> asyncio.Future[None]:
        await original(self, outputs)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    Publisher.send = send  # type: ignore[method-assign]


def _finished_in_any_order() -> None:
    def release(self: SliceConsumer, one: Slice) -> None:
        self._finished_slices += 1
        self._watermark[one.tp] = max(self._watermark.get(one.tp, 0), one.offset + 1)

    SliceConsumer.release = release  # type: ignore[method-assign]


def _watermark_off_by_one() -> None:
    original = SliceConsumer.release

    def release(self: SliceConsumer, one: Slice) -> None:
        original(self, one)
        if self._watermark.get(one.tp) == one.offset + 1:
            self._watermark[one.tp] = one.offset + 2

    SliceConsumer.release = release  # type: ignore[method-assign]


def _errors_are_swallowed(of_dead_letters_only: bool) -> Callable[[], None]:
    def apply() -> None:
        original = publishing.undelivered

        def undelivered(error: KafkaError | None, message: Message) -> KafkaError | None:
            swallowed = not of_dead_letters_only or "dead-letters" in (message.topic() or "")
            return None if swallowed else original(error, message)

        publishing.undelivered = undelivered

    return apply


def _ids_from_a_counter() -> None:
    original, numbers = decisions.decide, itertools.count()

    def decide(*args: Any) -> list[Output]:
        return [
            one._replace(value={**one.value, "id": str(next(numbers))}) if isinstance(one.value, dict) else one
            for one in original(*args)
        ]

    assert hasattr(pipeline, "decide")
    setattr(pipeline, "decide", decide)  # noqa: B010 - not a name that the module offers


MUTATIONS: dict[str, Mutation] = {
    "take": Mutation("R1: take() and default acknowledgement", _take),
    "exceptions-leave-agents": Mutation("R2: an exception leaves an agent", _exceptions_leave_the_agent),
    "task-crashes-ignored": Mutation("R3: a background task's crash is ignored", _crashes_of_tasks_are_ignored),
    "finished-too-early": Mutation("R4: finished before outputs are acknowledged",
                                   _finished_before_the_outputs_are_acknowledged),
    "finished-out-of-order": Mutation("R4b: commits past what is unfinished", _finished_in_any_order),
    "dead-letter-failures-ignored": Mutation("R8: a failed dead letter is ignored", _errors_are_swallowed(True)),
    "off-by-one": Mutation("the watermark is one too far", _watermark_off_by_one),
    "delivery-errors-swallowed": Mutation("a delivery error is swallowed", _errors_are_swallowed(False)),
    "ids-from-a-counter": Mutation("R6: ids are no coordinates", _ids_from_a_counter),
}  # fmt: skip
