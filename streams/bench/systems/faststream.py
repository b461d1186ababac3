"""FastStream: a batch subscriber that publishes batches, on its `KafkaBroker` (aiokafka).

After https://faststream.ag2.ai/latest/kafka/Subscriber/batch_subscriber/ (`batch=True`, a list of pydantic objects),
.../kafka/Publisher/batch_publisher/ (`broker.publish_batch`) and .../kafka/ack/ (a policy that commits after the
handler: the default is at most once). Its line of log for every message is off.
"""

import asyncio

from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage
from pydantic import BaseModel, Field

from streams.bench.job import Job
from streams.bench.systems.common import At, open_scorer, predictions

_BATCH_BYTES = 900_000  # `publish_batch` refuses what does not fit into one record batch; Kafka takes 1 MB


class ChatTurn(BaseModel):
    """An input event."""

    id: str
    ts: str
    text: str = Field(min_length=1)
    conversation: str


def build(job: Job) -> FastStream:
    """The app with its one handler."""
    scorer = open_scorer(job)
    broker = KafkaBroker(job.bootstrap, max_batch_size=_BATCH_BYTES, logger=None)

    @broker.subscriber(  # type: ignore[untyped-decorator]  # its types are not looked at
        job.input_topic,
        batch=True,
        max_records=job.batch_events,
        batch_timeout_ms=int(job.batch_wait_ms),
        group_id=job.group,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    async def score(turns: list[ChatTurn], message: KafkaMessage) -> None:
        records = message.raw_message if isinstance(message.raw_message, tuple) else (message.raw_message,)
        events = [turn.model_dump() for turn in turns]
        places = [At(record.topic, record.partition, record.offset) for record in records]
        if job.kind == "model":
            scored = await asyncio.to_thread(predictions, job, scorer, events, places)
        else:
            scored = predictions(job, scorer, events, places)
        await broker.publish_batch(*scored, topic=job.output_topic)

    return FastStream(broker, logger=None)


if __name__ == "__main__":
    asyncio.run(build(Job.from_command_line()).run())
