"""Where the story is set: a broker of its own, a configuration, the champion, and the commands that a user gives."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streams.settings import TOPICS, Settings, load_settings
from tests.kafka.harness import ROOT, configure, start, stop
from tests.learning_story.world import TASK, World, write
from tests.streams.wire import free_port

PARTITIONS = 4
SOURCE = "transactions"
COMMAND_S = 1200.0


class CommandFailed(RuntimeError):
    """A command ended with a code that the story does not expect."""


class Stage:
    """A folder with the data, the task, the configuration and `$STREAMGAUGE_HOME`; topics of its own."""

    def __init__(self, folder: Path, world: World, bootstrap: str) -> None:
        self.folder, self.world = folder, world
        self.taught = write(folder / "taught.jsonl", world.taught)
        self.hold_out = write(folder / "hold_out.jsonl", world.hold_out)
        self.task = folder / f"{TASK}.toml"
        self.task.write_text(_task_file(world))
        self.champion = folder / "champion"
        self._bootstrap, self._run = bootstrap, f"story-{os.getpid()}"
        self._ports = free_port(), free_port()
        self.config = self.configured("streamgauge.toml")
        self._env = {"STREAMGAUGE_HOME": str(folder / "home")}

    def configured(self, name: str, **knobs: object) -> Path:
        """Write a configuration, its successors trained with these knobs; topics and ports are the same in all."""
        lines = ["[broker]", f'bootstrap = "{self._bootstrap}"', f'group = "{self._run}"', "[topics]"]
        lines += [f"partitions = {PARTITIONS}", *(f'{topic} = "{self._run}-{topic}"' for topic in TOPICS)]
        lines += ["[metrics]", f"port = {self._ports[0]}", "[models]", 'device = "cpu"']
        lines += [f'tasks.{TASK} = "{self.task}"', f'releases.{TASK} = "{self.champion}"']
        lines += ["[drift]", "window_s = 60", "look_every_s = 2", "labels_a_day = 400", f"port = {self._ports[1]}"]
        lines += ["[retrain]", "shadow_share = 1.0", "nice = 0"]
        lines += [f"knobs.{knob} = {json.dumps(value)}" for knob, value in {**self.world.knobs, **knobs}.items()]
        lines += [f"[sources.{SOURCE}]", f'topic = "{self._run}-{SOURCE}"', f'tasks = ["{TASK}"]']
        lines += ["[sources.news]", "enabled = false", "[sources.chat]", "enabled = false"]
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n")
        return path

    @property
    def settings(self) -> Settings:
        """As the commands read them."""
        return load_settings(self.config, env={})

    def sg(
        self, *arguments: object, codes: tuple[int, ...] = (0,), config: Path | None = None, aside: bool = False
    ) -> Any:
        """A `streamgauge` command, run to its end; the JSON object of its last line, None where there is none.

        One that stands `aside` leaves the processor to the worker, as if it were given on another machine.

        Raises:
            CommandFailed: it ended with another code.
        """
        command = [*(["nice", "-n", "10"] if aside else []), sys.executable, "-m", "streams.cli", *map(str, arguments)]
        env = {**os.environ, **self._env, "STREAMGAUGE_CONFIG": str(config or self.config)}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=COMMAND_S)
        with (self.folder / "commands.log").open("a") as log:
            log.write(f"$ streamgauge {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}\n")
        if done.returncode not in codes:
            said = (done.stdout + done.stderr)[-3000:]
            raise CommandFailed(f"streamgauge {' '.join(map(str, arguments))}: code {done.returncode}\n{said}")
        return _last_json(done.stdout)

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A `streamgauge` command that goes on until the block is left; its output is in `<first word>.log`."""
        env = {**self._env, "STREAMGAUGE_CONFIG": str(self.config)}
        process = start(["-m", "streams.cli", *arguments], env, self.folder / f"{arguments[0]}.log")
        try:
            yield process
        finally:
            stop(process)

    def train_champion(self) -> None:
        """By `streamgauge train`, on what there is to know so far."""
        self.sg("train", self.task, "--data", self.taught, *self.world.training, "--out", self.champion)

    def stamped_by_the_broker(self) -> None:
        """Predictions carry the time at which the broker has them: by it latency is measured."""
        topic = self.settings.topics.predictions
        configure(self._bootstrap, "TOPIC", topic, message_timestamp_type="LogAppendTime")


def _task_file(world: World) -> str:
    lines = [f'name = "{TASK}"', "max_tokens = 96"]
    lines += [f'base = "{world.base}"'] if world.base else []
    return "\n".join([*lines, *(f"[labels.{label}]" for label in world.labels)]) + "\n"


def _last_json(said: str) -> Any:
    lines = [line for line in said.splitlines() if line.startswith(("{", "["))]
    return json.loads(lines[-1]) if lines else None
