"""A run that is killed and begun again gives the very weights of one that was not."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from models.lessons import Lesson
from models.resuming import FORGOTTEN_AFTER_S, Keeper, Run
from models.tasks import Task
from models.train_settings import TrainSettings
from models.training import Checkpoint, train
from tests.models.tiny import ignore, make_examples

QUICK = TrainSettings(epochs=3, learning_rate=3e-3, batch_texts=16, threads=1)
KINDS = {
    "full": QUICK.model_copy(update={"learn_embeddings": True, "patience": 2, "accumulate": 2, "average_decay": 0.9}),
    "adversarial": QUICK.model_copy(update={"fgm_epsilon": 0.1, "agreement_weight": 1.0, "vary_share": 0.5}),
    "lora": QUICK.model_copy(update={"method": "lora", "learning_rate": 1e-2}),
    "contrast, then head": QUICK.model_copy(
        update={"method": "head", "contrast_epochs": 2, "head_start": "centroids", "learning_rate": 1e-2}
    ),
}
STEPS = {"full": 6, "adversarial": 12, "lora": 12, "contrast, then head": 20}


class Killed(Exception):
    pass


def die_after(steps: int) -> Callable[[str, int, int], None]:
    def progress(what: str, done: int, total: int) -> None:
        if done >= steps:
            raise Killed

    return progress


def learn(
    task: Task,
    knobs: TrainSettings,
    folder: Path | None,
    progress: Callable[[str, int, int], None] = ignore,
    save_every_s: float = 0.0,
) -> Checkpoint:
    lesson = Lesson(task, make_examples(64), "tone.jsonl", make_examples(16, start=300))
    return train([lesson], knobs, progress, state_folder=folder, save_every_s=save_every_s)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    first, second = one.model.state_dict(), other.model.state_dict()
    return (
        one.best_epoch == other.best_epoch
        and one.heads == other.heads
        and all(torch.equal(first[name], second[name]) for name in first)
    )


def killed_and_resumed(task: Task, kind: str, folder: Path, kills: set[int]) -> Checkpoint:
    for steps in sorted(kills):
        with pytest.raises(Killed):
            learn(task, KINDS[kind], folder, die_after(steps))
        assert len(list(folder.iterdir())) == 1
    checkpoint = learn(task, KINDS[kind], folder)
    assert list(folder.iterdir()) == []  # a run that is over leaves nothing
    return checkpoint


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_twice_goes_on_as_if_it_had_not_been(kind: str, tiny_task: Task, tmp_path: Path) -> None:
    kills = {STEPS[kind] // 3, STEPS[kind] // 2 + 1}  # at the end of an epoch, before it was graded, and within one
    assert same(killed_and_resumed(tiny_task, kind, tmp_path, kills), learn(tiny_task, KINDS[kind], None))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_matter_after_which_steps_a_run_is_killed(
    kind: str, tiny_task: Task, tmp_path_factory: pytest.TempPathFactory
) -> None:
    unbroken = learn(tiny_task, KINDS[kind], None)

    @settings(max_examples=15, deadline=None)
    @given(st.sets(st.integers(1, STEPS[kind]), max_size=3))
    def holds(kills: set[int]) -> None:
        assert same(killed_and_resumed(tiny_task, kind, tmp_path_factory.mktemp("state"), kills), unbroken)

    holds()


def test_steps_are_not_done_twice(tiny_task: Task, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        learn(tiny_task, QUICK, tmp_path, die_after(7))
    done: list[int] = []
    learn(tiny_task, QUICK, tmp_path, lambda what, step, total: done.append(step))
    assert done == list(range(7, 13))  # at 7 it says that it goes on


def test_states_of_other_runs_and_damaged_ones_are_not_gone_on_with(tiny_task: Task, tmp_path: Path) -> None:
    unbroken = learn(tiny_task, QUICK, None)
    with pytest.raises(Killed):
        learn(tiny_task, QUICK.model_copy(update={"seed": 8}), tmp_path, die_after(7))
    (other,) = tmp_path.iterdir()
    assert same(learn(tiny_task, QUICK, tmp_path), unbroken)
    assert list(tmp_path.iterdir()) == [other]
    with pytest.raises(Killed):
        learn(tiny_task, QUICK, tmp_path, die_after(1))
    (own,) = set(tmp_path.iterdir()) - {other}
    own.write_bytes(other.read_bytes()[:1000])
    assert same(learn(tiny_task, QUICK, tmp_path), unbroken)
    other.rename(own)
    assert same(learn(tiny_task, QUICK, tmp_path), unbroken)


def test_a_state_that_nobody_came_back_to_is_deleted(tiny_task: Task, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        learn(tiny_task, QUICK, tmp_path, die_after(1))
    (state,) = tmp_path.iterdir()
    long_ago = state.stat().st_mtime - FORGOTTEN_AFTER_S - 60
    os.utime(state, (long_ago, long_ago))
    with pytest.raises(Killed):
        learn(tiny_task, QUICK.model_copy(update={"seed": 8}), tmp_path, die_after(1))
    assert not state.exists()


def test_states_are_saved_only_now_and_then(tiny_task: Task, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        learn(tiny_task, QUICK, tmp_path, die_after(9), save_every_s=3600)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_takes_long_to_write_is_written_more_rarely(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters())
    times = iter([0.0, 59.0, 60.0, 70.0, 669.0, 670.0, 670.5, 730.5, 731.0])  # the first state takes 10 s, then 0.5 s
    keeper = Keeper(tmp_path, "mark", 60.0, lambda: next(times))
    kept = []
    for step in range(1, 6):
        keeper.save_now_and_then(Run(step=step), network, optimizer)
        kept.append(keeper.restore(network, optimizer).step)
    assert kept == [0, 2, 2, 4, 5]


CHILD = """
import json, os, signal, sys
from pathlib import Path
from safetensors.torch import save_file
from models.lessons import Lesson
from models.tasks import Task
from models.train_settings import TrainSettings
from models.training import train
from tests.models.tiny import make_examples

base, folder, die_at, out = sys.argv[1:]

def progress(what, done, total):
    if done == int(die_at):
        os.kill(os.getpid(), signal.SIGKILL)

task = Task(name="tone", max_tokens=24, base=base)
lesson = Lesson(task, make_examples(64), "tone.jsonl", make_examples(16, start=300))
knobs = TrainSettings(epochs=3, learning_rate=3e-3, batch_texts=16, threads=1)
model = train([lesson], knobs, progress, state_folder=Path(folder), save_every_s=0.0).model
save_file(model.state_dict(), out)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_and_started_again_gives_the_same_bytes(tiny_base: Path, tmp_path: Path) -> None:
    def run(die_at: int, out: str) -> int:
        arguments = [str(tiny_base), str(tmp_path / out[:1]), str(die_at), str(tmp_path / out)]
        return subprocess.run([sys.executable, "-c", CHILD, *arguments], check=False).returncode

    assert run(0, "a-unbroken") == 0
    assert run(5, "b-killed") == -signal.SIGKILL
    assert run(9, "b-killed") == -signal.SIGKILL
    assert run(0, "b-killed") == 0
    unbroken, killed = (load_file(tmp_path / name) for name in ("a-unbroken", "b-killed"))
    assert unbroken.keys() == killed.keys()
    assert all(torch.equal(unbroken[name], killed[name]) for name in unbroken)
