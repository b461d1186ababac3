"""Faust as its documentation shows it: an agent that takes batches from its stream and sends to a topic.

After https://faust-streaming.github.io/faust/userguide/streams.html ("take() -- Buffer up values in the stream" with
`within`, and `await other_topic.send(value=value)`) and .../userguide/models.html (`faust.Record`). `take_events` is
`take` that also hands over where an event lies, which the predictions name. The leader topic and the declaring of
topics are switched off because nothing needs them and the embedded broker has neither.
"""

from __future__ import annotations

import asyncio
from typing import Any

import faust

from streams.bench.job import Job
from streams.bench.systems.common import At, checked, open_scorer, predictions


class ChatTurn(faust.Record, serializer="json"):
    """An input event."""

    id: str
    ts: str
    text: str
    conversation: str


def build(job: Job) -> faust.App:
    """The app with its one agent."""
    scorer = open_scorer(job)
    app = faust.App(
        job.group,
        broker=f"kafka://{job.bootstrap}",
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        datadir=job.directory,
    )
    source = app.topic(job.input_topic, value_type=ChatTurn)
    sink = app.topic(job.output_topic, value_serializer="json")

    @app.agent(source)
    async def score(stream: Any) -> None:
        async for taken in stream.take_events(job.batch_events, within=job.batch_wait_ms / 1000):
            events = [checked(event.value.asdict()) for event in taken]
            messages = [event.message for event in taken]
            places = [At(message.topic, message.partition, message.offset) for message in messages]
            if job.kind == "model":
                scored = await asyncio.to_thread(predictions, job, scorer, events, places)
            else:
                scored = predictions(job, scorer, events, places)
            for message, one in zip(messages, scored, strict=True):
                await sink.send(key=message.key, value=one)

    return app


if __name__ == "__main__":
    faust.Worker(build(Job.from_command_line()), loglevel="WARNING").execute_from_commandline()
