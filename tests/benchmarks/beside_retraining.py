"""A worker at its load while `streamgauge retrain` learns on the same cores: what that costs its 99th percentile.

    python -m tests.benchmarks.beside_retraining --data smishing_5971 [--window-s 40] [--way "chrt -i 0"]

Real Kafka, a worker with a model trained on a part of the data, events at `--load` of the most that it gets done while
they are being sent, at random times. Each round has a window without a retraining, and one with it (collect, curate,
split, train), from its start on, for each way to run it; all see the same arrivals, and each round begins with another
one. Latency is from when an event was due to when the broker has its prediction. The retraining runs as by default:
niceness, cores. One line of JSON a window, the last one over all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
from confluent_kafka import Consumer, TopicPartition

from models.datasets import Example, check, read_jsonl
from models.learning.opinions import Opinion, Position, Statement, text_key
from models.learning.store import Contents, DatasetStore, ReadUpTo
from streams.bench.load import Loader
from streams.broker import KafkaBroker
from streams.settings import TOPICS, Settings, load_settings
from streams.topics import create_topics
from tests.kafka.harness import ROOT, configure, start, stop
from tests.streams.wire import Ends, free_port

TASK, SOURCE, PARTITIONS = "wording", "transactions", 4
TAUGHT, LABELLED = 1500, 900  # texts that the champion learns, and that people label since
EPOCHS = 40  # of the retraining, so that it lasts as long as a window
PROBE, PROBE_S = 4000, 9.0  # events of a backlog, and seconds of more than it can do, by which the most is measured
SETTLE_S = 3.0


class Desk:
    """A folder with the data, the champion, the opinions and the configuration; its commands."""

    def __init__(self, folder: Path, bootstrap: str, data: Path, seed: int) -> None:
        rows = check(read_jsonl(data / "train.jsonl")).examples
        random.Random(seed).shuffle(rows)
        self.folder, self._taught, said = folder, rows[:TAUGHT], rows[TAUGHT : TAUGHT + LABELLED]
        self.texts = [one.text for one in rows]
        self._old = folder / "taught.jsonl"
        self._old.write_text("".join(json.dumps(one._asdict()) + "\n" for one in self._taught))
        self.champion, self._env = folder / "champion", {"STREAMGAUGE_HOME": str(folder / "home")}
        self._config(bootstrap, sorted({one.label for one in rows}))
        self.settings: Settings = load_settings(folder / "streamgauge.toml", env={})
        self._label(said)

    def _config(self, bootstrap: str, labels: Sequence[str]) -> None:
        task = self.folder / f"{TASK}.toml"
        task.write_text(f'name = "{TASK}"\nmax_tokens = 64\n' + "".join(f"[labels.{label}]\n" for label in labels))
        lines = ["[broker]", f'bootstrap = "{bootstrap}"', "[topics]", f"partitions = {PARTITIONS}"]
        lines += [f'{name} = "beside-{name.replace("_", "-")}"' for name in TOPICS]
        lines += ["[metrics]", f"port = {free_port()}", "[models]", 'device = "cpu"']
        lines += [f'tasks.{TASK} = "{task}"', f'releases.{TASK} = "{self.champion}"']
        lines += ["[retrain]", f"knobs.epochs = {EPOCHS}", "knobs.patience = 1000", f"[sources.{SOURCE}]"]
        lines += [f'topic = "beside-{SOURCE}"', f'tasks = ["{TASK}"]']
        lines += ["[sources.news]", "enabled = false", "[sources.chat]", "enabled = false"]
        (self.folder / "streamgauge.toml").write_text("\n".join(lines) + "\n")
        self._env["STREAMGAUGE_CONFIG"] = str(self.folder / "streamgauge.toml")

    def _label(self, examples: Sequence[Example]) -> None:
        at_s = time.time() - len(examples)
        ledger = {}
        for row, one in enumerate(examples):
            key, who, moment = text_key(one.text), f"annotator{row % 9}", at_s + row
            said = Opinion(TASK, key, one.text, one.label, who, moment, moment, f"desk{row % 3}")
            ledger[key, who] = Statement(said, Position(0, row))
        read = ReadUpTo(topic=self.settings.topics.feedback, topic_id="", offsets={0: 0})
        store = DatasetStore(TASK, self.folder / "home" / "learning")
        store.add(Contents(ledger), {}, read, datetime.now(UTC))

    def train(self) -> None:
        command = ["train", str(self.folder / f"{TASK}.toml"), "--data", str(self._old), "--recipe", "quick"]
        self._run([sys.executable, "-m", "streams.cli", *command, "--knob", "epochs=1", "--out", str(self.champion)])

    def _run(self, command: Sequence[str]) -> None:
        env = {**os.environ, **self._env}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    @contextlib.contextmanager
    def working(self) -> Iterator[subprocess.Popen[bytes]]:
        process = start(["-m", "streams.worker"], self._env, self.folder / "worker.log")
        try:
            yield process
        finally:
            stop(process)

    @contextlib.contextmanager
    def retraining(self, prefix: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        """`streamgauge retrain`, ended by SIGKILL: the next one goes on where it was."""
        command = [
            "-m",
            "streams.cli",
            "retrain",
            str(self.folder / f"{TASK}.toml"),
            "--once",
            "--data",
            str(self._old),
        ]
        env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | self._env
        with (self.folder / "retrain.log").open("ab") as log:
            process = subprocess.Popen([*prefix, sys.executable, *command], cwd=ROOT, env=env, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


class Stream:
    """Events into the worker's source, and when their predictions were there."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._topics = desk, desk.settings.topics
        self._loader = Loader(desk.settings.broker.bootstrap, f"beside-{SOURCE}", PARTITIONS)
        self._ends = Ends(desk.settings.broker.bootstrap, [self._topics.predictions], PARTITIONS)
        self.sent = 0

    def _values(self, count: int) -> list[bytes]:
        rows = [
            {"id": f"e{self.sent + row}", "text": self._desk.texts[(self.sent + row) % len(self._desk.texts)]}
            for row in range(count)
        ]
        self.sent += count
        return [orjson.dumps(row) for row in rows]

    def until_done(self, limit_s: float = 120.0) -> None:
        end_s = time.monotonic() + limit_s
        while self._ends.total() < self.sent:
            assert time.monotonic() < end_s, (self.sent, (self._desk.folder / "worker.log").read_text()[-3000:])
            time.sleep(0.05)

    def most_per_s(self) -> float:
        """Events a second that get done while more are sent; a backlog before teaches the worker its batches."""
        self._loader.fill(self._values(PROBE))
        began = time.perf_counter()
        self.until_done()
        per_s = 1.5 * PROBE / (time.perf_counter() - began)
        values = self._values(int(per_s * PROBE_S))
        with ThreadPoolExecutor(1) as threads:
            sending = threads.submit(self._loader.pace, values, [row / per_s for row in range(len(values))])
            time.sleep(PROBE_S / 3)
            first, began = self._ends.total(), time.perf_counter()
            sending.result()
            found = (self._ends.total() - first) / (time.perf_counter() - began)
        self.until_done()
        return found

    def window(self, per_s: float, seconds: float, seed: int) -> list[float]:
        """Latencies in ms of events that come at random times, Poisson, at this rate for so long."""
        gaps = np.random.default_rng(seed).exponential(1 / per_s, int(per_s * seconds))
        first = self.sent
        ends = self._positions()
        due_ms = self._loader.pace(self._values(len(gaps)), np.cumsum(gaps).tolist())
        self.until_done()
        there_ms = self._there(ends, len(gaps))
        return [there_ms[f"e{first + row}"] - due for row, due in enumerate(due_ms)]

    def _positions(self) -> list[TopicPartition]:
        consumer = Consumer({"bootstrap.servers": self._desk.settings.broker.bootstrap, "group.id": "ends"})
        parts = [TopicPartition(self._topics.predictions, part) for part in range(PARTITIONS)]
        found = [TopicPartition(one.topic, one.partition, consumer.get_watermark_offsets(one, 10)[1]) for one in parts]
        consumer.close()
        return found

    def _there(self, since: list[TopicPartition], count: int) -> dict[str, int]:
        """When the broker had the prediction of each event, by the event's id."""
        config = {"bootstrap.servers": self._desk.settings.broker.bootstrap, "group.id": "read"}
        consumer = Consumer(config | {"enable.auto.commit": False})
        consumer.assign(since)
        found: dict[str, int] = {}
        while len(found) < count:
            for message in consumer.consume(2000, 10):
                found[orjson.loads(message.value() or b"")["event_id"]] = message.timestamp()[1]
        consumer.close()
        return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window-s", type=float, default=40.0)
    parser.add_argument("--load", type=float, default=0.7)
    parser.add_argument("--way", action="append", default=[""], help="also with this before the command that retrains")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--quiet", type=Path, help="made when all is prepared, removed at the end: others may wait for it"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, KafkaBroker() as broker:
        desk = Desk(Path(folder), broker.bootstrap, given.data, given.seed)
        desk.train()
        create_topics(desk.settings)
        stamps = {"message_timestamp_type": "LogAppendTime"}
        configure(broker.bootstrap, "TOPIC", desk.settings.topics.predictions, **stamps)
        with desk.working(), hushed(given.quiet):
            measured(desk, given)


@contextlib.contextmanager
def hushed(quiet: Path | None) -> Iterator[None]:
    """A file that says that time is being taken."""
    if quiet is not None:
        quiet.touch()
    try:
        yield
    finally:
        if quiet is not None:
            quiet.unlink(missing_ok=True)


def measured(desk: Desk, given: argparse.Namespace) -> None:
    """The rounds, printed."""
    stream = Stream(desk)
    most = stream.most_per_s()
    rate, ways = given.load * most, [None, *given.way]
    ratios: dict[str, list[float]] = {way: [] for way in given.way}
    for turn in range(given.rounds):
        p99: dict[str | None, float] = {}
        for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
            time.sleep(SETTLE_S)
            with contextlib.nullcontext() if way is None else desk.retraining(shlex.split(way)) as process:
                took = stream.window(rate, given.window_s, given.seed + turn)
                lasts = process is None or process.poll() is None
            p50, p99[way] = np.percentile(took, [50, 99]).tolist()
            row = {"round": turn, "way": way, "events": len(took), "p50_ms": p50, "p99_ms": p99[way], "lasts": lasts}
            print(json.dumps(row), flush=True)
        for way in given.way:
            ratios[way].append(p99[way] / p99[None])
    found = {way or "as by default": [round(one, 2) for one in its] for way, its in ratios.items()}
    medians = {way: statistics.median(its) for way, its in found.items()}
    rates = {"most_per_s": round(most), "rate_per_s": round(rate)}
    print(json.dumps({"ratios": found, "ratio": medians, **rates}), flush=True)


if __name__ == "__main__":
    main()
