"""What Faust's documentation shows: a JSON topic, `take`, `send`. It loses events; the harness must see that."""

from __future__ import annotations

import os
from typing import Any

import faust


def naive_app() -> faust.App:
    app = faust.App(
        os.environ["NAIVE_GROUP"],
        broker="kafka://" + os.environ["NAIVE_BOOTSTRAP"],
        value_serializer="json",
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        datadir=os.environ["NAIVE_DATA"],
    )
    out = app.topic(os.environ["NAIVE_PREDICTIONS"], value_serializer="json")

    async def agent(stream: Any) -> None:
        async for batch in stream.take(64, within=0.05):
            for body in batch:
                await out.send(value={"id": body["id"], "event_id": body["id"], "label": body["text"].upper()})

    for topic in os.environ["NAIVE_TOPICS"].split(","):
        app.agent(app.topic(topic), name=f"naive-{topic}")(agent)
    return app


if __name__ == "__main__":
    faust.Worker(naive_app(), loglevel="WARNING", override_logging=False).execute_from_commandline()
