"""What watches from outside: processes, metrics, batches of the ceiling, what came out."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from streams.bench.arena import Embedded, arena
from streams.bench.load import Loader
from streams.bench.observe import Outputs, Stalled, cpu_s, verify, watch
from streams.bench.running import padding_of
from streams.bench.systems.ceiling import _Window, batches
from streams.bench.systems.common import NULL_LABELS, NullScorer, decode
from streams.bench.texts import events
from streams.broker import BrokerError

BUSY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.3: pass\\nprint('done', flush=True)\\ntime.sleep(60)"])
while time.process_time() < 0.2: pass
child.wait()
"""  # noqa: E501


@pytest.mark.skipif(sys.platform != "linux", reason="processor times are read from /proc")
def test_the_time_of_a_process_includes_its_children() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 10
        while cpu_s(process.pid) < 0.45 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert 0.45 <= cpu_s(process.pid) < 2
        os.killpg(process.pid, 9)


def test_a_process_that_has_ended_has_used_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert cpu_s(process.pid) == 0


def test_ours_tells_its_padding_in_its_metrics() -> None:
    metrics = """# HELP streamgauge_tokens_total Tokens
streamgauge_tokens_total{task="a"} 100.0
streamgauge_tokens_total{task="b"} 1e2
streamgauge_padded_tokens_total{task="a"} 110.0
streamgauge_padded_tokens_total{task="b"} 130.0
"""
    assert padding_of(metrics) == 1.2
    assert padding_of("streamgauge_events_in_total 3") is None


def test_a_watch_ends_with_the_last_output_and_tells_of_each() -> None:
    counts, told = iter([0, 0, 3, 3, 5]), list[int]()
    samples = watch(lambda: next(counts), os.getpid(), 5, 60, lambda: None, told.append)
    assert [one.outputs for one in samples] == [0, 0, 3, 3, 5]
    assert told == [3, 5]


def test_a_watch_gives_up_on_a_system_that_does_nothing() -> None:
    with pytest.raises(Stalled, match=r"2 of 5 outputs, and none for 0\.05 s"):
        watch(lambda: 2, os.getpid(), 5, 0.05, lambda: None, lambda _: None)


def test_missing_and_repeated_outputs_are_found() -> None:
    with Embedded().field(()) as there:
        values = [b'{"event_id": "%s"}' % name for name in (b"e0", b"e1", b"e1", b"e3")]
        loader = Loader(there.bootstrap, there.output_topic, there.partitions)
        loader.fill(values[:2])
        due_ms = loader.pace(values[2:], [0.0, 0.02])
        outputs = Outputs(there.bootstrap, there.output_topic, there.partitions)
        assert outputs.count() == 4
        found = verify(there.bootstrap, there.output_topic, there.partitions, 4, ["e0", "e1", "e2", "e3"])
    assert (found.missing, found.duplicates) == (1, 1)
    assert found.came_ms["e3"] == due_ms[1] == due_ms[0] + 20


def test_a_broker_that_is_none_is_refused() -> None:
    with pytest.raises(BrokerError, match="--broker rabbit: no such broker"), arena("rabbit"):
        pass


def test_the_ceiling_wastes_little_and_leaves_nothing_out() -> None:
    windows = [_Window([0] * (2 + number * 7 % 90), 1) for number in range(2000)]
    cut = batches(windows, 2048)
    assert sorted(len(one.ids) for batch in cut for one in batch) == sorted(len(one.ids) for one in windows)
    padded = [max(len(one.ids) for one in batch) * len(batch) for batch in cut]
    assert max(padded) <= 2048
    assert sum(padded) / sum(len(one.ids) for one in windows) < 1.1
    assert cut == batches(windows, 2048)
    assert batches([_Window([0] * 5000, 1)], 2048) == [[_Window([0] * 5000, 1)]]


def test_an_event_is_checked_and_scored_alike() -> None:
    event = decode(events(["hello"])[0])
    assert event["text"] == "hello"
    assert NullScorer().score(["a", "b"]).shape == (2, len(NULL_LABELS))
    with pytest.raises(ValueError, match="not empty"):
        decode(b'{"text": ""}')
