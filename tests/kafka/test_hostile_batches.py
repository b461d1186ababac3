"""Batches that expand without end or that aiokafka cannot read, among honest events, through a real worker."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka.errors import KafkaError

from streams.broker import KafkaBroker
from streams.settings import Settings
from tests.kafka.harness import configure, event, start, stop
from tests.kafka.test_retention import configuration, until
from tests.streams.commands import Run, runner
from tests.streams.test_record_batches import attributes, far_offset, trailing
from tests.streams.wire import committed, read_all
from tests.streams.wire_raw import (
    CODECS,
    LZ4,
    NONE,
    batch_of,
    bomb,
    record_of,
    sealed,
    send_batch,
)

MIB = 1 << 20
RECORDS, RECORD_BYTES = 5, 50 * MIB
BOUND_MIB = 64
HONEST = 40  # in a batch

pytestmark = pytest.mark.kafka


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return runner(monkeypatch, capsys, tmp_path)


@pytest.fixture
def configured(kafka: KafkaBroker, tiny_releases: dict[str, Path], tmp_path: Path) -> tuple[Path, Settings]:
    file, settings = configuration(tmp_path, kafka, tiny_releases)
    assert settings.intake.max_expanded_batch_mib == BOUND_MIB
    configure(kafka.bootstrap, "TOPIC", settings.sources["chat"].topic, max_message_bytes=32 * MIB)
    return file, settings


def honest(first: int, codec: int) -> bytes:
    return batch_of([(None, event(number), []) for number in range(first, first + HONEST)], codec)


def values(kafka: KafkaBroker, topic: str) -> list[dict[str, Any]]:
    return [orjson.loads(message.value() or b"") for message in read_all(kafka.bootstrap, topic, 1)]


def test_bombs_and_unreadable_batches_stop_nothing_and_cost_no_more_than_the_bound(
    kafka: KafkaBroker, configured: tuple[Path, Settings], tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    file, settings = configured
    topic, log = settings.sources["chat"].topic, tmp_path / "worker.log"
    sent, too_large, broken, next_offset = 0, set[int](), set[int](), 0

    def send(batch: bytes) -> range:
        nonlocal next_offset
        first = asyncio.run(send_batch(kafka.bootstrap, topic, 0, batch))
        assert first == next_offset
        next_offset += int.from_bytes(batch[23:27], "big") + 1
        return range(first, next_offset)

    def done() -> bool:
        assert worker.poll() is None, f"ended with {worker.returncode}:\n{log.read_text()}"
        return committed(kafka.bootstrap, settings.broker.group, topic, 1) == [next_offset]

    def scored_so_far() -> int:
        return len(read_all(kafka.bootstrap, settings.topics.predictions, 1))

    send(honest(0, LZ4))
    worker = start(["-m", "streams.worker"], {"STREAMGAUGE_CONFIG": str(file)}, log)
    try:
        until(lambda: scored_so_far() >= HONEST, log, 180)
        until(done, log, 60)
        before = peak_mib(worker, reset=True)
        sent = HONEST
        for codec in CODECS:
            too_large |= set(send(bomb(codec, RECORDS, RECORD_BYTES)))
            send(honest(sent, codec))
            sent += HONEST
        broken |= set(send(trailing()))
        broken |= set(send(attributes(0x80))[1:]) | set(send(far_offset())[1:])
        send(honest(sent, NONE))
        sent += HONEST
        until(done, log, 180)
        grown_mib = peak_mib(worker) - before
    finally:
        ended = stop(worker)
    assert ended == 0
    scored = [one["event_id"] for one in values(kafka, settings.topics.predictions)]
    assert sorted(scored) == sorted(f"e{number}" for number in range(sent)), "honest events were harmed"
    letters = values(kafka, settings.topics.dead_letters)
    by_error: dict[str, list[int]] = {}
    for one in letters:
        by_error.setdefault(one["error"], []).append(one["source"]["offset"])
    assert by_error.pop("WrongShape") and by_error.pop("NotJson"), "what could be read of a batch is judged as it is"
    assert {error: sorted(offsets) for error, offsets in by_error.items()} == {
        "BatchTooLarge": sorted(too_large), "BatchUnreadable": sorted(broken),
    }  # fmt: skip
    with capsys.disabled():
        print(f"\n{len(CODECS)} bombs of {RECORDS * RECORD_BYTES // MIB} MiB: the worker grew by {grown_mib:.0f} MiB")
    assert grown_mib < BOUND_MIB + 100

    shown = run("dead-letters", "show", f"{topic}/0/{min(too_large)}/dead-letter", "--config", file)
    assert shown.code == 0 and "max_expanded_batch_mib" in shown.out and "in its topic" in shown.out
    redriven = run("dead-letters", "redrive", "--error", "Batch", "--yes", "--json", "--config", file)
    said = json.loads(redriven.out.splitlines()[-1])
    assert (redriven.code, said["redriven"]) == (1, 0)
    assert said["refused_by"] == {"truncated": len(too_large) + len(broken)}


def peak_mib(process: subprocess.Popen[bytes], reset: bool = False) -> float:
    """The most memory a process has had resident since the last reset."""
    folder = Path(f"/proc/{process.pid}")
    if reset:
        (folder / "clear_refs").write_text("5")
    lines = (folder / "status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


@pytest.mark.parametrize(
    "batch",
    [
        *(sealed(b"\xff no stream of any codec", codec, 2) for codec in CODECS),
        sealed(record_of(b"a", 0) + record_of(b"b", 1), NONE, 1),
    ],
    ids=["gzip", "snappy", "lz4", "zstd", "count"],
)
def test_what_brokers_look_at_they_refuse(kafka: KafkaBroker, configured: tuple[Path, Settings], batch: bytes) -> None:
    """They read every batch that is sent, as far as they must; it is what they pass over that reaches a worker."""
    _, settings = configured
    with pytest.raises(KafkaError):
        asyncio.run(asyncio.wait_for(send_batch(kafka.bootstrap, settings.sources["chat"].topic, 0, batch), 30))
