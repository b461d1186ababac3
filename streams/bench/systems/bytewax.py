"""Bytewax: Kafka in, `flat_map_batch`, Kafka out, with its recovery store.

After https://docs.bytewax.io/stable/guide/concepts/kafka.html (the `kop` operators, errors raised) and
.../guide/advanced-concepts/performance.html, which recommends `flat_map_batch` with the source's `batch_size` for
computations on a batch. One worker: it says that more contend for the interpreter. Recovery as in
.../guide/concepts/recovery.html, at its default interval. Without a model `batch_size` stays at its default.
"""

from __future__ import annotations

from pathlib import Path

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from streams.bench.job import Job
from streams.bench.systems.common import At, decode, open_scorer, predictions

_DEFAULT_BATCH = 1000
_Raw = bytes | None


def build(job: Job) -> Dataflow:
    """The dataflow."""
    scorer = open_scorer(job)

    def score(messages: list[KafkaSourceMessage[_Raw, _Raw]]) -> list[KafkaSinkMessage[_Raw, _Raw]]:
        events = [decode(message.value) for message in messages]
        places = [At(message.topic or "", message.partition or 0, message.offset or 0) for message in messages]
        scored = predictions(job, scorer, events, places)
        return [KafkaSinkMessage(m.key, orjson.dumps(one)) for m, one in zip(messages, scored, strict=True)]

    flow = Dataflow("bench")
    size = job.batch_events if job.kind == "model" else _DEFAULT_BATCH
    source = kop.input("in", flow, brokers=[job.bootstrap], topics=[job.input_topic], batch_size=size)
    op.inspect("errors", source.errs).then(op.raises, "raise")
    kop.output("out", op.flat_map_batch("score", source.oks, score), brokers=[job.bootstrap], topic=job.output_topic)
    return flow


def main(job: Job) -> None:
    """Until the process is ended."""
    store = Path(job.directory) / "recovery"
    store.mkdir()
    init_db_dir(store, 1)
    cli_main(build(job), recovery_config=RecoveryConfig(str(store)))


if __name__ == "__main__":
    main(Job.from_command_line())
