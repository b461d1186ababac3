"""Replays recorded streams through real Kafka and a real worker, and measures what comes out.

    python -m tests.benchmarks.streams_on_kafka --config FILE news=news.jsonl chat=chat.jsonl [--rate N] [--limit N]

Starts Apache Kafka and one worker with the given configuration (the broker's address is filled in), sends each file to
the topic of its source, waits until every record has its end, and prints one JSON object: events/s from the start of
the worker (or of sending) to the last output, p50 and p99 from an input's time stamp to its prediction's, records per
topic, and what was lost. Without --rate all records are there before the worker starts: that gives the sustained rate,
start-up included, and its latencies are only those of a backlog.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from streams.broker import KafkaBroker
from streams.events import Coordinates
from streams.replay import key_of, lines_of
from streams.security import librdkafka_config
from streams.settings import Settings, load_settings
from streams.topics import create_topics

QUIET_S, POLL_S = 3.0, 0.2
OUTPUTS = ("predictions", "alerts", "routes", "review", "dead_letters")


def send(settings: Settings, files: dict[str, Path], rate: float | None, limit: int | None) -> int:
    """Send the files' lines in turn; returns how many."""
    producer = Producer({**librdkafka_config(settings.broker), "linger.ms": 2})
    started_s, sent = time.monotonic(), 0
    streams = {name: lines_of(path, limit) for name, path in files.items()}
    while streams:
        for name in list(streams):
            line = next(streams[name], None)
            if line is None:
                del streams[name]
                continue
            source = settings.sources[name]
            producer.produce(source.topic, line[1], key_of(line[1], source.key))
            producer.poll(0)
            sent += 1
            if sent % 5000 == 0:
                producer.flush(30)
            if rate and (ahead_s := sent / rate - (time.monotonic() - started_s)) > 0:
                time.sleep(ahead_s)
    assert producer.flush(60) == 0
    return sent


def collect(
    settings: Settings, expected: int, worker: subprocess.Popen[bytes], timeout_s: float, keep: Path | None
) -> tuple[Counter[str], list[int]]:
    """Read inputs and outputs until every input has its end: counts, and input-to-prediction latencies in ms."""
    names = {getattr(settings.topics, name): name for name in OUTPUTS}
    inputs = {source.topic for source in settings.active_sources.values()}
    consumer = Consumer({**librdkafka_config(settings.broker), "group.id": "bench", "enable.auto.commit": False})
    parts = range(settings.topics.partitions)
    consumer.assign([TopicPartition(topic, part, 0) for topic in [*names, *inputs] for part in parts])
    counts: Counter[str] = Counter()
    came_ms: dict[Coordinates, int] = {}
    done_ms: dict[Coordinates, int] = {}
    end_s = time.monotonic() + timeout_s
    with (keep or Path(os.devnull)).open("wb") as alerts:
        quiet_s = 0.0
        while quiet_s < QUIET_S and time.monotonic() < end_s:
            assert worker.poll() is None, f"the worker ended with code {worker.returncode}"
            messages = consumer.consume(1000, POLL_S)
            whole = len(done_ms) >= expected and len(came_ms) >= expected
            quiet_s = quiet_s + POLL_S if whole and not messages else 0.0  # surge alerts come a little later
            for message in messages:
                topic, value = message.topic() or "", message.value() or b""
                if topic in inputs:
                    came_ms[Coordinates.of(message)] = message.timestamp()[1]
                    continue
                counts[names[topic]] += 1
                if names[topic] == "alerts":
                    alerts.write(value + b"\n")
                elif names[topic] in ("predictions", "dead_letters"):
                    source = json.loads(value)["source"]
                    at = Coordinates(source["topic"], source["partition"], source["offset"])
                    done_ms[at] = message.timestamp()[1]
    consumer.close()
    return counts, [done_ms[at] - came_ms[at] for at in done_ms if at in came_ms]


def main() -> None:
    """Run the measurement the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", metavar="SOURCE=FILE")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--rate", type=float, help="events a second over all files")
    parser.add_argument("--limit", type=int, help="lines of each file")
    parser.add_argument("--alerts", type=Path, help="keep the alerts in this file")
    parser.add_argument("--timeout", type=float, default=900)
    options = parser.parse_args()
    files = {name: Path(path) for name, path in (one.split("=", 1) for one in options.files)}
    with KafkaBroker() as broker:
        os.environ["STREAMGAUGE_BROKER__BOOTSTRAP"] = broker.bootstrap
        os.environ["STREAMGAUGE_METRICS__PORT"] = "0"
        if options.config:
            os.environ["STREAMGAUGE_CONFIG"] = str(options.config.resolve())
        settings = load_settings()
        create_topics(settings)
        print(json.dumps(measure(settings, files, options)))


def measure(settings: Settings, files: dict[str, Path], options: argparse.Namespace) -> dict[str, object]:
    """One run; see the module's docstring."""
    command = [sys.executable, "-m", "streams.worker"]
    sent = 0
    if options.rate is None:
        sent = send(settings, files, None, options.limit)
    worker = subprocess.Popen(command)
    try:
        if options.rate is not None:
            time.sleep(15)  # let the worker join the group: this measures latency at a rate, not the start
            started_s = time.monotonic()
            sent = send(settings, files, options.rate, options.limit)
        else:
            started_s = time.monotonic()
        counts, latencies_ms = collect(settings, sent, worker, options.timeout, options.alerts)
        seconds = time.monotonic() - started_s - QUIET_S
    finally:
        worker.terminate()
        worker.wait(60)
    ordered = sorted(latencies_ms) or [0]
    return {
        "events": sent,
        "lost": sent - len(latencies_ms),
        "seconds": round(seconds, 1),
        "events_per_s": round(sent / seconds, 1),
        "p50_ms": ordered[len(ordered) // 2],
        "p99_ms": ordered[int(len(ordered) * 0.99)],
        "topics": dict(counts),
    }


if __name__ == "__main__":
    main()
