"""What a run of training needs to go on after it was killed as if nothing had been: one file, replaced whole.

Random numbers are not part of it: every epoch and step draws its own from the seed and its number. The file holds
tensors and JSON (safetensors), so reading it runs no code.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.datasets import data_hash
from models.lessons import Lesson
from models.train_settings import TrainSettings

FORGOTTEN_AFTER_S = 7 * 86_400.0  # a state that nobody came back to
SAVE_EVERY_S = 60.0  # what a kill costs at most, times the seconds that a state takes to be written


@dataclass
class Run:
    """How far a run is: steps done, epochs graded, the best of them (0: none yet), its weights, their running mean."""

    step: int = 0
    graded_epoch: int = 0
    best_epoch: int = 0
    best_f1: float = -1.0
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    mean_weights: dict[str, torch.Tensor] = field(default_factory=dict)


def fingerprint(lessons: Sequence[Lesson], settings: TrainSettings, origin_sha256: str) -> str:
    """SHA-256 over all that decides what a run gives: a state goes on only in the run it was made by."""
    parts: list[Any] = [settings.model_dump(), origin_sha256, torch.__version__]
    for lesson in lessons:
        dev = data_hash(lesson.dev_examples) if lesson.dev_examples else None
        soft = None if lesson.soft_targets is None else hashlib.sha256(lesson.soft_targets.tobytes()).hexdigest()
        weights = None if lesson.weights is None else hashlib.sha256(lesson.weights.tobytes()).hexdigest()
        parts.append([lesson.task.model_dump(), data_hash(lesson.examples), dev, soft, weights])
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class Keeper:
    """Keeps a run's state in a folder, beside those of other runs; with None for a folder it keeps nothing."""

    def __init__(
        self,
        folder: Path | None,
        mark: str,
        every_s: float = SAVE_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`mark` is the run's fingerprint."""
        self._path = folder / f"{mark[:16]}.safetensors" if folder else None
        self._mark = mark
        self._every_s = every_s
        self._clock = clock
        self._saved_at = clock()
        self._saving_s = 1.0

    def restore(self, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Run:
        """Put weights and optimiser back as they were saved; a new run when nothing fitting is there."""
        if self._path is None:
            return Run()
        _delete_old(self._path.parent)
        if not self._path.is_file():
            return Run()
        try:
            with safe_open(self._path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("mark") != self._mark:
                    return Run()
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError):  # cut off or no state at all: begin anew
            return Run()
        _put(network, optimizer, tensors)
        return Run(
            **json.loads(metadata["run"]), best_weights=_under("best/", tensors), mean_weights=_under("mean/", tensors)
        )

    def save_now_and_then(self, run: Run, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Save the state after a step, when the last time is long enough ago: the longer, the longer it takes.

        A teacher's state has gigabytes, which a slow disk would be busy with most of the time.
        """
        began_at = self._clock()
        if self._path is not None and began_at - self._saved_at >= self._every_s * self._saving_s:
            self._save(self._path, run, network, optimizer)
            self._saved_at = self._clock()
            self._saving_s = max(1.0, self._saved_at - began_at)

    def _save(self, path: Path, run: Run, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        weights = {name: weight.detach() for name, weight in network.named_parameters() if weight.requires_grad}
        moments = {
            f"{number}/{name}": value
            for number, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        parts = {"now/": weights, "best/": run.best_weights, "mean/": run.mean_weights, "moment/": moments}
        tensors = {prefix + name: its.contiguous() for prefix, part in parts.items() for name, its in part.items()}
        about = {
            "step": run.step,
            "graded_epoch": run.graded_epoch,
            "best_epoch": run.best_epoch,
            "best_f1": run.best_f1,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.{os.getpid()}")
        save_file(tensors, beside, {"mark": self._mark, "run": json.dumps(about)})
        beside.replace(path)

    def forget(self) -> None:
        """Delete the state: the run is over."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _delete_old(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        if time.time() - path.stat().st_mtime > FORGOTTEN_AFTER_S:
            path.unlink(missing_ok=True)


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): its for name, its in tensors.items() if name.startswith(prefix)}


def _put(network: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    now = _under("now/", tensors)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name in now:
                weight.copy_(now[name])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, its in _under("moment/", tensors).items():
        number, _, moment = name.partition("/")
        state.setdefault(int(number), {})[moment] = its
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
