"""Surge windows after kills, stops, rebalances and compaction, against the detector alone; on real Kafka.

    python -m tests.surge_state [--kills 50] [--stops 10] [--observations 100000] [--workers 2] [--seed N] [--json]

Observations flow into a group of workers. Workers are killed at random moments of their work and started again, or
stopped for longer than the group waits for them and continued: each is then a zombie with work in its hands. Meanwhile
Kafka compacts the state topic every second. At the end every alert and every state must be what `SurgeDetector` says
when it is fed with the same log in this process without any interruption: an alert that is missing, other or new is one
of `wrong_alerts`, an entity or progress that differs one of `wrong_states`. Ends with 1 if there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Producer
from rich.console import Console
from rich.progress import Progress

from streams.broker import KafkaBroker
from streams.children import free_ports
from streams.events import Observation, iso
from streams.security import librdkafka_config
from streams.settings import TOPICS, Settings, load_settings
from streams.surge_codec import EntityState, decode_progress, decode_record
from streams.surge_state import ENTITY_PREFIX, META_KEY, read_compacted
from streams.surges import SurgeChange, SurgeDetector
from streams.topics import create_topics
from tests.kafka.harness import configure, start
from tests.streams.wire import Ends, committed, read_all
from tests.whereabouts import SURE

PARTITIONS, ENTITIES, BAD_EVERY, SESSION_S = 4, 40, 997, 6

START_S, EVENT_TIME_S = 1_760_000_000.0, 48 * 3600.0
TURN_S, FAULT_S = 0.05, 8.0  # between two sends; what a fault is expected to take
RETURN_LIMIT_S = 300.0  # on a busy machine


def configuration(folder: Path, name: str, bootstrap: str, release: Path, metrics_port: int = 0) -> Path:
    """A settings file with group and topics of the run's own; workers of one run differ in their port alone."""
    topics = {output: f"{name}-{output}" for output in TOPICS}
    lines = ["[broker]", f'bootstrap = "{bootstrap}"', f'group = "{name}"', f"session_timeout_s = {SESSION_S}"]
    lines += ["[topics]", f"partitions = {PARTITIONS}"] + [f'{output} = "{topic}"' for output, topic in topics.items()]
    lines += ["[metrics]", f"port = {metrics_port}", "[models]", 'device = "cpu"', "threads = 1"]
    lines += [f'releases.sentiment = "{release}"', "[batching]", "max_slice_events = 20"]
    lines += ["[surge]", "max_entities = 12", "cooldown_s = 600", "resolve_ratio = 1.2"]
    lines += ["[sources.news]", f'topic = "{name}-news"']
    lines += ["[sources.chat]", "enabled = false", "[sources.transactions]", "enabled = false"]
    file = folder / f"{name}-{metrics_port}.toml"
    file.write_text("\n".join(lines))
    return file


def observations(count: int, seed: int) -> list[tuple[str, bytes]]:
    """(entity, value): quiet days with bursts, more entities than a detector remembers, some late, some broken."""
    rng = random.Random(seed)
    bursts = [(rng.randrange(ENTITIES), rng.uniform(0.05, 0.95), rng.uniform(0.003, 0.02)) for _ in range(60)]
    found = []
    for number in range(count):
        share = number / count
        raging = [entity for entity, since, length in bursts if since <= share < since + length]
        entity = rng.choice(raging) if raging and rng.random() < 0.6 else rng.randrange(ENTITIES)
        time_s = START_S + share * EVENT_TIME_S - (rng.uniform(0, 900) if rng.random() < 0.1 else 0)
        hit = rng.random() < (0.9 if entity in raging else 0.05)
        value: Observation = {
            "id": f"news/0/{number}/observation/0", "entity": f"E{entity}", "event_time_s": round(time_s, 3),
            "hit": hit, "score": round(rng.random(), 6), "text": f"headline {number}", "release": "sentiment-1",
        }  # fmt: skip
        broken = number % BAD_EVERY == BAD_EVERY - 1
        found.append((f"E{entity}", b"{broken" if broken else json.dumps(value).encode()))
    return found


def compact_often(bootstrap: str, topic: str) -> None:
    """Let Kafka compact a topic every second or so, whatever is in it.

    Tombstones stay for as long as a reader may be under way, which is what Kafka asks for.
    """
    configure(bootstrap, "BROKER", "1", log_cleaner_backoff_ms=500)
    configure(
        bootstrap, "TOPIC", topic, segment_ms=1000, min_cleanable_dirty_ratio=0, min_compaction_lag_ms=0,
        delete_retention_ms=60_000,
    )  # fmt: skip


# ---- what must come out


@dataclass
class Outcome:
    """Alerts by id; states by "partition/entity", with the progress of a partition as "partition/(progress)"."""

    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)
    repeated: int = 0

    def differences(self, other: Outcome) -> tuple[list[str], list[str]]:
        """Names of the alerts, and of the states, in which two outcomes differ."""
        alerts = {key for key in self.alerts.keys() | other.alerts.keys()
                  if self.alerts.get(key) != other.alerts.get(key)}  # fmt: skip
        states = {key for key in self.states.keys() | other.states.keys()
                  if self.states.get(key) != other.states.get(key)}  # fmt: skip
        return sorted(alerts), sorted(states)


def oracle(settings: Settings) -> Outcome:
    """What one detector for each partition says that reads the log from end to end in this process."""
    partitions, wanted = settings.topics.partitions, Outcome()
    detectors = [SurgeDetector(settings.surge) for _ in range(partitions)]
    for message in read_all(settings.broker.bootstrap, settings.topics.observations, partitions):
        value, partition, offset = message.value() or b"", message.partition() or 0, message.offset() or 0
        if value == b"{broken":
            continue
        for change in detectors[partition].observe(offset, orjson.loads(value)):
            wanted.alerts[change.output_id] = _wanted_alert(change)
    for partition, detector in enumerate(detectors):
        records = {name: data for name, data in detector.changed().items() if data is not None}
        _add_states(wanted, partition, records, detector.meta())
    return wanted


def _wanted_alert(change: SurgeChange) -> dict[str, Any]:
    evidence = {"counts": dict(change.counts), "headlines": list(change.evidence)}
    return {"event_id": change.alert_id, "event_time": iso(change.event_time_s), "release": change.release,
            "state": change.state, "severity": change.severity, "subject": change.entity,
            "evidence": evidence}  # fmt: skip


def published(settings: Settings) -> Outcome:
    """What the workers said, and what they would recover now."""
    partitions, found = settings.topics.partitions, Outcome()
    for message in read_all(settings.broker.bootstrap, settings.topics.alerts, partitions):
        alert = orjson.loads(message.value() or b"")
        kept = {key: alert[key] for key in
                ("event_id", "event_time", "release", "state", "severity", "subject", "evidence")}  # fmt: skip
        if alert["id"] in found.alerts:
            found.repeated += 1
            if found.alerts[alert["id"]] != kept:
                found.alerts[alert["id"] + " (repeated, but other)"] = kept
        else:
            found.alerts[alert["id"]] = kept
    for partition in range(partitions):
        config, topic = librdkafka_config(settings.broker), settings.topics.surge_state
        records = read_compacted(config, topic, partition, 60)
        meta = records.pop(META_KEY)
        _add_states(found, partition, {key.removeprefix(ENTITY_PREFIX): one for key, one in records.items()}, meta)
    return found


def _add_states(outcome: Outcome, partition: int, records: dict[str, bytes], meta: bytes) -> None:
    """Entities rolled back to the progress, as a recovery would see them; the epoch counts recoveries, and may differ.

    The oracle's progress ends at its last good observation, a worker's too.
    """
    progress = decode_progress(meta)
    outcome.states[f"{partition}/(progress)"] = asdict(progress) | {"epoch": None}
    for name, data in records.items():
        state: EntityState | None = decode_record(name, data, progress.next_offset).state
        if state is not None:
            outcome.states[f"{partition}/{name}"] = asdict(state)


# ---- the run


class Workers:
    """Some workers of one group, each started again as soon as it has ended."""

    def __init__(self, files: Sequence[Path], ports: Sequence[int]) -> None:
        self._files, self.ports = files, ports
        self.codes: Counter[int] = Counter()
        self._running = [self._start(place) for place in range(len(files))]

    def _start(self, place: int) -> subprocess.Popen[bytes]:
        file = self._files[place]
        return start(["-m", "streams.worker"], {"STREAMGAUGE_CONFIG": str(file)}, file.with_suffix(".log"))

    def revive(self) -> None:
        """Start those that have ended."""
        for place, process in enumerate(self._running):
            if (code := process.poll()) is not None:
                self.codes[code] += 1
                self._running[place] = self._start(place)

    def pid(self, place: int) -> int:
        return self._running[place].pid

    def taken(self, place: int) -> float:
        """How many observations this process has read, by its own account."""
        try:
            url = f"http://127.0.0.1:{self.ports[place]}/metrics"
            page = urllib.request.urlopen(url, timeout=2).read().decode()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return 0.0
        wanted = 'streamgauge_events_in_total{source="observations"} '
        return next((float(line.removeprefix(wanted)) for line in page.splitlines() if line.startswith(wanted)), 0.0)

    def fenced(self) -> int:
        """How often a worker found that another one had taken its state over."""
        logs = [file.with_suffix(".log").read_text() for file in self._files]
        return sum(log.count("another worker has taken it over") for log in logs)

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                self.codes[process.wait(60)] += 1
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self.codes[-signal.SIGKILL] += 1


class Feed(threading.Thread):
    """Sends observations without a pause, so slowly that they last until the last fault."""

    def __init__(self, bootstrap: str, topic: str, rows: list[tuple[str, bytes]], faults: int) -> None:
        super().__init__(daemon=True)
        self._producer = Producer({"bootstrap.servers": bootstrap, **SURE, "linger.ms": 5})
        self._topic, self._rows, self._sent = topic, rows, 0
        self.faults_left = faults
        self._hurry = threading.Event()

    def run(self) -> None:
        while self._sent < len(self._rows) and not self._hurry.wait(TURN_S):
            due = (len(self._rows) - self._sent) * TURN_S / (FAULT_S * (1 + self.faults_left))
            self._send(math.ceil(due))
        self._send(len(self._rows))
        assert self._producer.flush(60) == 0

    def _send(self, count: int) -> None:
        for entity, value in self._rows[self._sent : self._sent + count]:
            self._producer.produce(self._topic, value, entity.encode())
            self._producer.poll(0)
        self._sent = min(len(self._rows), self._sent + count)

    def finish(self) -> None:
        """Send the rest at once, and wait until all is acknowledged."""
        self._hurry.set()
        self.join()


def hit(workers: Workers, number: signal.Signals, rng: random.Random, hits: set[int]) -> None:
    """Let a random worker that was not hit yet work for a random while, then send it the signal."""
    place, end_s = rng.randrange(len(workers.ports)), time.monotonic() + RETURN_LIMIT_S
    while workers.pid(place) in hits or workers.taken(place) == 0:
        workers.revive()
        assert time.monotonic() < end_s, f"worker {place} did not come back to work in {RETURN_LIMIT_S} s"
        time.sleep(0.1)
    time.sleep(rng.uniform(0.02, 1.0))
    pid = workers.pid(place)
    os.kill(pid, number)
    if number is signal.SIGSTOP:
        time.sleep(SESSION_S + rng.uniform(2, 4))  # the others take over meanwhile
        os.kill(pid, signal.SIGCONT)
    else:
        hits.add(pid)


def run(bootstrap: str, folder: Path, release: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The whole test on a running broker; returns what `--json` prints."""
    rng, name, started_s = random.Random(options.seed), f"surges-{uuid.uuid4().hex[:8]}", time.monotonic()
    ports = free_ports(options.workers)
    files = [configuration(folder, name, bootstrap, release, port) for port in ports]
    settings = load_settings(files[0])
    assert not [outcome for outcome in create_topics(settings) if outcome.todo]
    compact_often(bootstrap, settings.topics.surge_state)
    faults = [signal.SIGKILL] * options.kills + [signal.SIGSTOP] * options.stops
    rng.shuffle(faults)
    rows = observations(options.observations, options.seed)
    feed = Feed(bootstrap, settings.topics.observations, rows, len(faults))
    feed.start()
    workers, hits = Workers(files, ports), set[int]()
    with _progress(options.json) as progress:
        bar = progress.add_task("faults", total=len(faults) + 1)
        try:
            for number in faults:
                hit(workers, number, rng, hits)
                feed.faults_left -= 1
                progress.advance(bar)
            feed.finish()
            await_all(settings, workers, len(rows))
        finally:
            workers.stop()
    return _report(settings, workers, folder, options) | {"seconds": round(time.monotonic() - started_s, 1)}


def _report(settings: Settings, workers: Workers, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    wanted, found = oracle(settings), published(settings)
    alerts, states = wanted.differences(found)
    (folder / "differences.json").write_text(json.dumps(
        {key: (one.get(key), other.get(key)) for names, one, other in (
            (alerts, wanted.alerts, found.alerts),
            (states, wanted.states, found.states)) for key in names}, indent=2))  # fmt: skip
    ends = Ends(settings.broker.bootstrap, [settings.topics.surge_state], PARTITIONS)
    left = len(read_all(settings.broker.bootstrap, settings.topics.surge_state, PARTITIONS))
    report = {
        "observations": options.observations, "workers": options.workers, "kills": options.kills,
        "stops": options.stops, "fenced": workers.fenced(), "alerts": len(wanted.alerts),
        "states": len(wanted.states), "wrong_alerts": len(alerts), "wrong_states": len(states),
        "first_wrong": (alerts + states)[:5], "repeated_alerts": found.repeated,
        "state_records_written": ends.total(), "state_records_left": left,
        "exit_codes": {str(code): count for code, count in sorted(workers.codes.items())}, "seed": options.seed,
    }  # fmt: skip
    ends.close()
    return report


def await_all(settings: Settings, workers: Workers, count: int) -> None:
    """Wait until the group has committed every observation."""
    at, topic, end_s = settings.broker.bootstrap, settings.topics.observations, time.monotonic() + RETURN_LIMIT_S
    while sum(max(0, one) for one in committed(at, settings.broker.group, topic, PARTITIONS)) < count:
        workers.revive()
        assert time.monotonic() < end_s, f"not all observations were finished within {RETURN_LIMIT_S} s"
        time.sleep(0.3)


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    with Progress(console=Console(stderr=True), disable=quiet) as progress:
        yield progress


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(prog="python -m tests.surge_state", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--observations", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument(
        "--keep", type=Path, help="Where settings and logs of the workers stay, and the differences as [wanted, found]."
    )
    parser.add_argument("--json", action="store_true", help="One JSON object last, and no progress bar.")
    return parser.parse_args(given)


def main() -> int:
    """Run it with a broker and a tiny model of its own."""
    from tests.tiny_releases import make_tiny_release  # torch takes seconds

    options = arguments()
    with tempfile.TemporaryDirectory() as scratch, KafkaBroker(start_timeout_s=RETURN_LIMIT_S) as broker:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        report = run(broker.bootstrap, folder, make_tiny_release("sentiment", Path(scratch) / "tiny"), options)
    print(json.dumps(report, indent=None if options.json else 2))
    return 1 if report["wrong_alerts"] or report["wrong_states"] else 0


if __name__ == "__main__":
    sys.exit(main())
