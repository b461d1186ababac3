"""A worker's memory under twice what it can do, with floods of keys, hostile times and 1 MB events; on real Kafka.

    python -m tests.memory [--minutes 30] [--cap-mib 512] [--json]

The first minute measures how many events a second the worker does; then twice as many are sent, until the backlog is
`BACKLOG` events, which it stays at: the worker never has a pause. Of the events some name one of 10,000 entities, some
carry a time far in the past, in the future or absurd, and once a second comes one of 1 MB. Every ten seconds the
worker's resident memory, open files, threads, tasks on the event loop and series of metrics are read. The slope is
that of a straight line through the samples after the first third, with its standard error. Ends with 1 when the memory
passed the cap, or when there were more files, threads, tasks or series (by the median) in the last third than in the
middle one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from confluent_kafka import KafkaException, Producer
from rich.console import Console
from rich.progress import Progress

from streams.bench.texts import load_texts
from streams.broker import KafkaBroker
from streams.children import free_ports
from streams.settings import TOPICS, Settings, load_settings
from streams.topics import create_topics
from tests.benchmarks.scale_and_memory import SAMPLE_S, rss_mib
from tests.kafka.harness import configure, start, stop
from tests.streams.wire import Ends, committed

PARTITIONS, KEYS, BACKLOG = 4, 10_000, 200_000
START_S = 300.0  # on a busy machine
MEASURE_S, FIRST_RATE, TURN_S = 60.0, 20_000.0, 0.1
FULL_SHARE, FLOOD_SHARE, HOSTILE_SHARE = 0.8, 0.15, 0.05
HUGE = b'{"id": "huge", "text": "' + b"bank card " * 100_000 + b'"}'
LOW_MEDIAN_HIGH = (min, np.median, max)
HOSTILE_TIMES: tuple[object, ...] = (
    "1990-01-01T00:00:00Z", "1999-12-31T23:59:59.999Z", "2038-01-19T03:14:08Z", "2999-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z", 0, -1, 2**63 - 1, 1e308, "soon", None, True, [],
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """The worker at one moment."""

    at_s: float
    rss_mib: float
    files: int
    threads: int
    tasks: int
    series: int


class Load(threading.Thread):
    """Sends events at `rate` a second, as long as the backlog allows; once a second one of 1 MB."""

    def __init__(self, settings: Settings, seed: int) -> None:
        super().__init__(daemon=True)
        self._topic = settings.sources["news"].topic
        self._producer = Producer(
            {"bootstrap.servers": settings.broker.bootstrap, "compression.type": "lz4", "linger.ms": 20,
             "message.max.bytes": 2_000_000}
        )  # fmt: skip
        self._rng, self._texts = random.Random(seed), load_texts([], 2000)
        self._over = threading.Event()
        self.rate, self.sent, self.done = FIRST_RATE, 0, 0

    def run(self) -> None:
        turn = 0
        while not self._over.wait(TURN_S):
            turn += 1
            if turn % round(1 / TURN_S) == 0:
                self._producer.produce(self._topic, HUGE)
                self.sent += 1
            for _ in range(int(min(self.rate * TURN_S, BACKLOG - (self.sent - self.done)))):
                self._producer.produce(self._topic, self._event())
                self._producer.poll(0)
                self.sent += 1
        self._producer.flush(30)

    def _event(self) -> bytes:
        kind, number = self._rng.random(), self.sent
        entity, when = f"S{number % 7}", time.time() - self._rng.random() * 5
        event: dict[str, object] = {"id": f"e{number}", "ts": when, "text": self._texts[number % len(self._texts)]}
        if kind > FULL_SHARE:
            entity = f"K{self._rng.randrange(KEYS)}"
        if kind > FULL_SHARE + FLOOD_SHARE:
            event["ts"] = self._rng.choice(HOSTILE_TIMES)
        return orjson.dumps(event | {"symbols": [entity]})

    def end(self) -> None:
        self._over.set()
        self.join()


def configuration(folder: Path, bootstrap: str, release: Path, metrics_port: int) -> Path:
    """Settings of a worker that reads news and looks for surges."""
    name = f"memory-{uuid.uuid4().hex[:8]}"
    lines = ["[broker]", f'bootstrap = "{bootstrap}"', f'group = "{name}"', "[topics]", f"partitions = {PARTITIONS}"]
    lines += [f'{output} = "{name}-{output}"' for output in TOPICS]
    lines += ["[metrics]", f"port = {metrics_port}", "[models]", 'device = "cpu"', f'releases.sentiment = "{release}"']
    lines += [
        "[surge]",
        "bucket_s = 10",
        "baseline_buckets = 24",
    ]  # it remembers 5 minutes: warm before the first third
    lines += ["[sources.news]", f'topic = "{name}-news"']
    lines += ["[sources.chat]", "enabled = false", "[sources.transactions]", "enabled = false"]
    file = folder / "streamgauge.toml"
    file.write_text("\n".join(lines))
    return file


def keep_little(settings: Settings) -> None:
    """What came out is deleted soon: the disk is not what is tested. 1 MB events may come in."""
    at, names = settings.broker.bootstrap, settings.topics
    for topic in (names.predictions, names.alerts, names.review, names.dead_letters):
        configure(at, "TOPIC", topic, retention_bytes=64 << 20, segment_bytes=16 << 20)
    configure(at, "TOPIC", settings.sources["news"].topic, max_message_bytes=4 << 20)


def look(pid: int, metrics_port: int, at_s: float) -> Sample:
    """What a worker takes now."""
    page = urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=60).read().decode()
    series = [line for line in page.splitlines() if line and not line.startswith("#")]
    tasks = next(float(line.split()[-1]) for line in series if line.startswith("streamgauge_event_loop_tasks "))
    folder = Path(f"/proc/{pid}")
    files, threads = (len(list((folder / what).iterdir())) for what in ("fd", "task"))
    return Sample(at_s, rss_mib(pid), files, threads, int(tasks), len(series))


def run(bootstrap: str, folder: Path, release: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The whole test on a running broker; returns what `--json` prints."""
    port = free_ports(1)[0]
    file = configuration(folder, bootstrap, release, port)
    settings = load_settings(file)
    assert not [outcome for outcome in create_topics(settings) if outcome.todo]
    keep_little(settings)
    worker = start(["-m", "streams.worker"], {"STREAMGAUGE_CONFIG": str(file)}, folder / "worker.log")
    load, samples = Load(settings, options.seed), list[Sample]()
    try:
        await_metrics(worker, port)
        load.start()
        watch(settings, worker, port, load, samples, options)
    finally:
        load.end()
        code = stop(worker, 60)
    ends = Ends(bootstrap, [settings.topics.predictions, settings.topics.dead_letters], PARTITIONS)
    outputs = ends.total()
    ends.close()
    return report(samples, load, options) | {"outputs": outputs, "exit_code": code}


def await_metrics(worker: subprocess.Popen[bytes], port: int) -> None:
    end_s = time.monotonic() + START_S
    while True:
        assert worker.poll() is None, f"the worker ended with {worker.returncode}"
        try:
            look(worker.pid, port, 0)
            return
        except (OSError, StopIteration):
            assert time.monotonic() < end_s, "the worker serves no metrics"
            time.sleep(0.2)


def watch(
    settings: Settings, worker: subprocess.Popen[bytes], port: int, load: Load, samples: list[Sample],
    options: argparse.Namespace,
) -> None:  # fmt: skip
    """Take samples for so many minutes, and set the load to twice what the worker was seen to do."""
    at, topic = settings.broker.bootstrap, settings.sources["news"].topic
    started_s = time.monotonic()
    with Progress(console=Console(stderr=True), disable=options.json) as progress:
        bar = progress.add_task("minutes", total=options.minutes)
        while (passed_s := time.monotonic() - started_s) < options.minutes * 60:
            assert worker.poll() is None, f"the worker ended with {worker.returncode}"
            with contextlib.suppress(KafkaException):  # a busy coordinator; the next look asks again
                load.done = sum(max(0, one) for one in committed(at, settings.broker.group, topic, PARTITIONS))
            if load.rate == FIRST_RATE and passed_s > MEASURE_S and load.done:
                load.rate = 2 * load.done / passed_s
            samples.append(look(worker.pid, port, passed_s))
            progress.update(bar, completed=passed_s / 60)
            time.sleep(max(0.0, SAMPLE_S - (time.monotonic() - started_s - passed_s)))


def report(samples: Sequence[Sample], load: Load, options: argparse.Namespace) -> dict[str, Any]:
    """Figures, and in `grew` what had more in the last third than in the middle one."""
    third = len(samples) // 3
    late = np.array([(one.at_s / 3600, one.rss_mib) for one in samples[third:]])
    (slope, _), covariance = np.polyfit(late[:, 0], late[:, 1], 1, cov=True)
    counts = {}
    for name in ("files", "threads", "tasks", "series"):
        middle, last = ([getattr(one, name) for one in part] for part in (samples[third:-third], samples[-third:]))
        counts[name] = {"middle_third": [int(at(middle)) for at in LOW_MEDIAN_HIGH],
                        "last_third": [int(at(last)) for at in LOW_MEDIAN_HIGH]}  # fmt: skip
    most = max(one.rss_mib for one in samples)
    return {
        "minutes": round(samples[-1].at_s / 60, 1), "sent": load.sent, "done": load.done,
        "capacity_per_s": round(load.rate / 2), "backlog_at_end": load.sent - load.done,
        "rss_mib_first_third_half_last": [round(samples[at].rss_mib, 1) for at in (0, third, len(samples) // 2, -1)],
        "rss_mib_most": round(most, 1), "cap_mib": options.cap_mib, "under_the_cap": most < options.cap_mib,
        "slope_mib_per_h": round(float(slope), 2), "slope_error": round(float(covariance[0, 0]) ** 0.5, 2),
        **counts, "seed": options.seed,
        "grew": [name for name, one in counts.items() if one["last_third"][1] > one["middle_third"][1] + 1],
    }  # fmt: skip


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.memory", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--cap-mib", type=float, default=512)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="Where the worker's settings and log stay.")
    parser.add_argument("--json", action="store_true", help="One JSON object last, and no progress bar.")
    return parser.parse_args(given)


def main() -> int:
    """Run it with a broker and a tiny model of its own."""
    from tests.tiny_releases import make_tiny_release  # torch takes seconds

    options = arguments()
    with tempfile.TemporaryDirectory() as scratch, KafkaBroker(start_timeout_s=START_S) as broker:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found = run(broker.bootstrap, folder, make_tiny_release("sentiment", Path(scratch) / "tiny"), options)
    print(json.dumps(found, indent=None if options.json else 2))
    return 0 if found["under_the_cap"] and not found["grew"] else 1


if __name__ == "__main__":
    sys.exit(main())
