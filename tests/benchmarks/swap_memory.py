"""A model swapped again and again under load: what memory stays, and what the texts meanwhile wait.

    python -m tests.benchmarks.swap_memory RELEASE [--swaps 50] [--runtime NAME] [--rate 200] [--tried 3]

Two releases, RELEASE and a copy of it under another id, take turns in one process: the device, the scorers and the
roll-out are the worker's own, Kafka is left out. Texts of 2 to 60 words come at a rate, in slices of 16; memory is read
after each swap once the old model is gone. The first swaps (`--tried`) also try it in a child, as a worker does.
Prints one JSON object: resident MiB after the second swap and after the last, their ratio, and the p99 of a slice while
nothing is loaded and while something is.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from models.releases import MANIFEST, file_sha256, read_manifest, write_manifest
from streams.adaptive import Bounds
from streams.device import Device
from streams.events import Release
from streams.heap import calm_the_garbage_collector, give_large_blocks_back
from streams.learning.rollout import Rollout, prepare
from streams.live import Loaded, load_release
from streams.scoring import Scorer
from streams.serving import Challenge
from streams.settings import Settings, load_settings
from tests.benchmarks.scale_and_memory import rss_mib

SLICE = 16
WORDS = ("bank", "shares", "profit", "outage", "falls", "rises", "quarter", "customer", "refund", "parcel")
BOUNDS = Bounds(1024, 256, 65_536, 0.02, 0.2)


class Feeder:
    """Stands where a source's pipeline does: slices at a rate, each scored by what serves when it comes."""

    def __init__(self, rate: float) -> None:
        self._pause_s = SLICE / rate
        self._scorers: Sequence[Scorer] = ()
        self.loading = False
        self.waited_s: dict[bool, list[float]] = {False: [], True: []}

    def serve_with(self, scorers: Sequence[Scorer], challenges: Sequence[Challenge] = ()) -> None:
        self._scorers = scorers

    async def run(self) -> None:
        rng, running, due_s = np.random.default_rng(7), set[asyncio.Task[None]](), time.monotonic()
        while True:
            texts = [" ".join(rng.choice(WORDS, rng.integers(2, 60))) for _ in range(SLICE)]
            task = asyncio.create_task(self._slice(texts))
            running.add(task)
            task.add_done_callback(running.discard)
            due_s += self._pause_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _slice(self, texts: Sequence[str]) -> None:
        (scorer,), started_s, loading = self._scorers, time.monotonic(), self.loading
        scorer.users += 1
        await (await scorer.submit(texts))
        scorer.users -= 1
        self.waited_s[loading].append(time.monotonic() - started_s)

    def p99_ms(self, loading: bool) -> float:
        return round(1000 * float(np.percentile(self.waited_s[loading], 99)), 1)


def two_of(release: Path, folder: Path) -> list[Path]:
    """The release, and the same under another id."""
    copy = folder / "copy"
    shutil.copytree(release, copy)
    manifest = read_manifest(copy)
    write_manifest(copy, manifest.model_copy(update={"release": f"{manifest.release}-copy"}))
    return [release.resolve(), copy]


def record(directory: Path, task: str) -> Release:
    return {
        "task": task, "role": "champion", "mode": "serve", "share": 1.0, "reference": str(directory),
        "release": read_manifest(directory).release, "sha256": file_sha256(directory / MANIFEST),
        "promoted_at": "2026-01-01T00:00:00.000Z", "promoted_by": "benchmark", "previous": None,
    }  # fmt: skip


def configured(task: str, runtime: str) -> Settings:
    shipped = load_settings(env={})
    news = shipped.sources["news"].model_copy(update={"tasks": (task,)})
    models = shipped.models.model_copy(update={"runtime": runtime, "device": "cpu"})
    return shipped.model_copy(update={"sources": {"news": news}, "models": models})


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Swap so many times, with texts all the while."""
    releases = two_of(options.release, folder)
    task = read_manifest(releases[0]).tasks[0]
    settings = configured(task, options.runtime)
    first = load_release(settings, releases[0], [task])
    calm_the_garbage_collector()
    scorer, feeder = partial(Scorer, bounds=BOUNDS), Feeder(options.rate)
    scorers = [scorer(first)]
    device = Device(scorers, first.model.slots)
    runtime, turn = first.model.runtime, 0

    def brought(wanted: Release, tasks: Sequence[str]) -> Loaded:
        if turn <= options.tried:
            return prepare(settings, wanted, tasks)
        return load_release(settings, Path(wanted["reference"]), tasks, runtime)

    feeder.serve_with(scorers)
    rollout = Rollout(settings, device, {"news": feeder}, scorers, scorer, brought)
    loops = [asyncio.create_task(device.run()), asyncio.create_task(feeder.run())]
    memory_mib, gone = [], weakref.ref(first)
    del first, scorers
    for turn in range(1, options.swaps + 1):
        await asyncio.sleep(options.quiet_s)
        feeder.loading = True
        await rollout.follow({(task, "champion"): record(releases[turn % 2], task)})
        feeder.loading = False
        while gone() is not None:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.05)
        gone = weakref.ref(rollout.serving(task))
        gc.collect()
        memory_mib.append(round(rss_mib(os.getpid()), 1))
        print(f"swap {turn}: {memory_mib[-1]} MiB", flush=True)
    for loop in loops:
        loop.cancel()
    device.close()
    return {
        "runtime": runtime, "swaps": options.swaps, "rate": options.rate, "mib_after_2": memory_mib[1],
        "mib_after_last": memory_mib[-1], "ratio": round(memory_mib[-1] / memory_mib[1], 3),
        "p99_quiet_ms": feeder.p99_ms(False), "p99_loading_ms": feeder.p99_ms(True),
        "slices": {name: len(feeder.waited_s[on]) for name, on in (("quiet", False), ("loading", True))},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--rate", type=float, default=200.0, help="texts a second")
    parser.add_argument("--tried", type=int, default=3, help="so many first swaps also try the release in a child")
    parser.add_argument("--quiet-s", type=float, default=1.0, help="between two swaps")
    options = parser.parse_args()
    give_large_blocks_back()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(options, Path(folder)))))


if __name__ == "__main__":
    main()
