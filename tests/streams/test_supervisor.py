"""The supervisor over real processes.

It starts `python -m streams.worker` in its own working directory: where that holds another `streams/worker.py`, that
one runs, and does what the test wants. Nothing is patched.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SUPERVISOR = f"""
import json, logging, os, sys
sys.path.insert(0, {str(ROOT)!r})
from streams.supervisor import supervise
logging.basicConfig(level=logging.WARNING)
envs = [{{**os.environ, "WORKER": str(number)}} for number in range(int(sys.argv[1]))]
sys.exit(supervise(envs, float(sys.argv[2]), **json.loads(sys.argv[3])))
"""

# Notes each of its starts, then does what the test says.
WORKER = """
import os, signal, sys, threading, time
from pathlib import Path
note = Path(f"worker-{os.environ['WORKER']}")
with note.open("a") as file:
    file.write(f"{os.getpid()} {time.monotonic()}\\n")
starts = len(note.read_text().splitlines())
stopping = threading.Event()
def listen(code=0):
    signal.signal(signal.SIGTERM, lambda *_: (setattr(sys.modules[__name__], "code", code), stopping.set()))
    Path(f"listening-{os.environ['WORKER']}").touch()
def serve():
    while not stopping.wait(0.05):
        pass
    sys.exit(code)
"""


class Supervised:
    """A supervisor in a folder of its own."""

    def __init__(self, folder: Path, behaviour: str, workers: int = 1, grace_s: float = 20, **options: object) -> None:
        self.folder = folder
        package, name = str(options.get("module", "streams.worker")).split(".")
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
        (folder / package / f"{name}.py").write_text(WORKER + behaviour)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SUPERVISOR, str(workers), str(grace_s), json.dumps(options)],
                cwd=folder, env=env, stderr=log,
            )  # fmt: skip

    def starts(self, worker: int = 0) -> list[tuple[int, float]]:
        """Process id and time in s of each start of a worker."""
        note = self.folder / f"worker-{worker}"
        lines = note.read_text().splitlines() if note.exists() else []
        return [(int(line.split()[0]), float(line.split()[1])) for line in lines if len(line.split()) == 2]

    def listening(self, worker: int = 0) -> bool:
        return (self.folder / f"listening-{worker}").exists()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def until(self, true: Callable[[], bool], timeout_s: float = 20) -> None:
        end_s = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < end_s, f"not so within {timeout_s} s; the log:\n{self.log()}"
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Supervised] = []

    def run(behaviour: str, workers: int = 1, grace_s: float = 20, **options: object) -> Supervised:
        running.append(Supervised(tmp_path, behaviour, workers, grace_s, **options))
        return running[-1]

    yield run
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


def test_a_worker_that_crashes_is_started_again_with_growing_pauses(start: Start) -> None:
    one = start("sys.exit(70) if starts < 4 else (listen(), serve())")
    one.until(lambda: len(one.starts()) == 4 and one.listening())
    times = [time_s for _, time_s in one.starts()]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    for pause, least in zip(pauses, (0.5, 1.0, 2.0), strict=True):
        assert least <= pause < least + 1.5
    assert len({pid for pid, _ in one.starts()}) == 4
    assert "ended with code 70; starting again in 0.5 s" in one.log()
    assert one.stop() == 0


def test_another_module_may_be_the_worker_and_the_pauses_have_a_limit(start: Start) -> None:
    one = start("sys.exit(70) if starts < 4 else (listen(), serve())", module="another.program", longest_pause_s=0.6)
    one.until(lambda: len(one.starts()) == 4 and one.listening())
    assert re.findall(r"starting again in ([\d.]+) s", one.log()) == ["0.5", "0.6", "0.6"]
    assert one.stop() == 0


def test_a_worker_that_is_killed_is_started_again_and_the_others_go_on(start: Start) -> None:
    one = start("listen(); serve()", workers=2)
    one.until(lambda: one.listening(0) and one.listening(1))
    os.kill(one.starts(0)[0][0], signal.SIGKILL)
    one.until(lambda: len(one.starts(0)) == 2)
    assert len(one.starts(1)) == 1
    (one.folder / "listening-0").unlink(missing_ok=True)
    assert one.stop() in (0, signal.SIGTERM)  # the new one may not listen yet
    assert all(gone(pid) for worker in (0, 1) for pid, _ in one.starts(worker))


@pytest.mark.parametrize("code", [0, 1, 70, 75])
def test_a_worker_that_ends_by_itself_is_started_again_whatever_its_code_but_2(start: Start, code: int) -> None:
    one = start(f"sys.exit({code}) if starts < 2 else (listen(), serve())")
    one.until(lambda: len(one.starts()) == 2 and one.listening())
    assert f"ended with code {code}; starting again in 0.5 s" in one.log()
    assert one.stop() == 0


def test_a_refused_configuration_ends_all_of_them_with_2(start: Start) -> None:
    one = start("(listen(), serve()) if os.environ['WORKER'] == '0' else sys.exit(2)", workers=2)
    assert one.process.wait(20) == 2
    assert len(one.starts(1)) == 1
    assert all(gone(pid) for worker in (0, 1) for pid, _ in one.starts(worker))
    assert "starting again" not in one.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_stops_its_workers_in_order(start: Start, number: signal.Signals) -> None:
    one = start("listen(); serve()", workers=2)
    one.until(lambda: one.listening(0) and one.listening(1))
    assert one.stop(number) == 0
    assert all(gone(pid) for worker in (0, 1) for pid, _ in one.starts(worker))


def test_the_exit_code_is_that_of_the_worker_that_did_not_end_well(start: Start) -> None:
    one = start("listen(70 if os.environ['WORKER'] == '1' else 0); serve()", workers=2)
    one.until(lambda: one.listening(0) and one.listening(1))
    assert one.stop() == 70


def test_a_worker_told_to_stop_while_it_starts_has_stopped_well(start: Start) -> None:
    """Until its own handler stands, SIGTERM ends a worker at once: nothing was in flight, nothing is lost."""
    one = start("time.sleep(60)")
    one.until(lambda: len(one.starts()) == 1)
    assert one.stop() == 0


def test_a_worker_that_does_not_listen_is_killed_after_the_grace(start: Start) -> None:
    deaf = 'signal.signal(signal.SIGTERM, signal.SIG_IGN); Path("listening-0").touch(); time.sleep(60)'
    one = start(deaf, grace_s=0.5)
    one.until(one.listening)
    started_s = time.monotonic()
    assert one.stop() == signal.SIGKILL
    assert 0.5 <= time.monotonic() - started_s < 10
    assert gone(one.starts()[0][0])
    assert "; killed" in one.log()


def test_told_to_stop_between_two_starts_it_starts_nothing_more(start: Start) -> None:
    one = start("sys.exit(75)")
    one.until(lambda: "starting again in 1.0 s" in one.log())
    count = len(one.starts())
    assert one.stop() == 0
    assert len(one.starts()) == count


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a child with its parent")
def test_workers_do_not_outlive_a_supervisor_that_is_killed(start: Start) -> None:
    one = start("listen(); serve()", workers=2)
    one.until(lambda: one.listening(0) and one.listening(1))
    one.stop(signal.SIGKILL)
    one.until(lambda: all(gone(pid) for worker in (0, 1) for pid, _ in one.starts(worker)))
