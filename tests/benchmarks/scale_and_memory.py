"""What an event costs with more processes, and what a worker's memory does over time; on real Kafka.

    python -m tests.benchmarks.scale_and_memory scale [--processes 1 2 4] [--events 200000]
    python -m tests.benchmarks.scale_and_memory memory [--minutes 30] [--rate 2000] [--release DIR --task T] [--texts F]

`scale` lets so many workers of one group work off a backlog over four partitions, without a model, and prints events/s
and CPU time per event of all together. `memory` sends events at a rate and samples the worker's resident memory every
ten seconds; its slope is that of a straight line through the samples after the first third. Both print JSON lines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from streams.bench.arena import Arena, Field, arena
from streams.bench.contestants import CONTESTANTS
from streams.bench.job import Job, JobKind
from streams.bench.load import Loader
from streams.bench.observe import Outputs, cpu_s
from streams.bench.running import SIDE_TOPICS, Running
from streams.bench.texts import events, load_texts
from streams.children import free_ports

OURS = CONTESTANTS[0]
SAMPLE_S, POLL_S = 10.0, 0.05


@contextlib.contextmanager
def worker(there: Field, kind: JobKind, task: str, release: str) -> Iterator[Running]:
    """One worker of the field's group."""
    with tempfile.TemporaryDirectory() as directory:
        job = Job(
            kind=kind, directory=directory, bootstrap=there.bootstrap, input_topic=there.input_topic,
            output_topic=there.output_topic, group=there.name, partitions=there.partitions, task=task,
            release=release, runtime="auto", batch_events=0, batch_wait_ms=0.0, metrics_port=free_ports(1)[0],
        )  # fmt: skip
        with Running(OURS, job) as running:
            yield running


def scale(place: Arena, processes: int, values: list[bytes]) -> dict[str, object]:
    """A backlog worked off by so many workers, from the moment a tenth of it is done."""
    with place.field(SIDE_TOPICS) as there, contextlib.ExitStack() as stack:
        Loader(there.bootstrap, there.input_topic, there.partitions).fill(values)
        outputs = Outputs(there.bootstrap, there.output_topic, there.partitions)
        running = [stack.enter_context(worker(there, "stream", "sentiment", "")) for _ in range(processes)]
        first: tuple[float, int, float] | None = None
        while (count := outputs.count()) < len(values):
            if first is None and count > len(values) / 10:
                first = time.monotonic(), count, sum(cpu_s(one.pid) for one in running)
            for one in running:
                one.alive()
            time.sleep(POLL_S)
        assert first is not None, "it was over before it could be measured: give more --events"
        done, used_s = count - first[1], sum(cpu_s(one.pid) for one in running) - first[2]
        return {
            "processes": processes,
            "events_per_s": round(done / (time.monotonic() - first[0])),
            "cpu_us_per_event": round(used_s / done * 1e6, 1),
        }


def memory(place: Arena, options: argparse.Namespace) -> dict[str, object]:
    """Events at a rate for so many minutes, and the worker's resident memory."""
    texts = load_texts(options.texts, max(1000, int(options.rate * SAMPLE_S)))
    kind: JobKind = "model" if options.release else "stream"
    samples: list[tuple[float, float]] = []
    with place.field(SIDE_TOPICS) as there, worker(there, kind, options.task, options.release) as running:
        loader = Loader(there.bootstrap, there.input_topic, there.partitions)
        started_s = time.monotonic()
        due_s = [number / options.rate for number in range(int(options.rate * SAMPLE_S))]
        while (passed_s := time.monotonic() - started_s) < options.minutes * 60:
            loader.pace(events(texts[: len(due_s)]), due_s)
            running.alive()
            samples.append((passed_s, rss_mib(running.pid)))
        outputs = Outputs(there.bootstrap, there.output_topic, there.partitions).count()
    late = np.array(samples[len(samples) // 3 :])
    slope = np.polyfit(late[:, 0] / 3600, late[:, 1], 1)[0]
    return {
        "kind": kind,
        "minutes": options.minutes,
        "events": len(samples) * len(due_s),
        "outputs": outputs,
        "rss_mib_first_middle_last": [round(samples[at][1], 1) for at in (0, len(samples) // 2, -1)],
        "rss_mib_most": round(max(rss for _, rss in samples), 1),
        "slope_mib_per_h": round(float(slope), 2),
    }


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="what", required=True)
    one = commands.add_parser("scale")
    one.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    one.add_argument("--events", type=int, default=200_000)
    two = commands.add_parser("memory")
    two.add_argument("--minutes", type=float, default=30)
    two.add_argument("--rate", type=float, default=2000)
    two.add_argument("--release", default="")
    two.add_argument("--task", default="sentiment")
    for each in (one, two):
        each.add_argument("--texts", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    with arena("kafka") as place:
        if options.what == "memory":
            print(json.dumps(memory(place, options)), flush=True)
            return
        values = events(load_texts(options.texts, options.events))
        for processes in options.processes:
            print(json.dumps(scale(place, processes, values)), flush=True)


if __name__ == "__main__":
    main()
