"""Which release serves each task now."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.classifier import Encoded, Head, Model, Span
from models.errors import BadTask
from models.learning.profiles import Profile, read_profiles
from models.out_of_scope import Scope, outside_column
from models.references import is_reference
from models.releases import MANIFEST, file_sha256, find_release
from models.runtimes import precision_of, reference
from models.tasks import LabelPolicy, Task, load_task
from streams import metrics
from streams.settings import Settings

log = logging.getLogger(__name__)

_WARM_UP = "a text to measure the cost of batches with, as short and as long as they come "
_WARM_UP_SIZES = ((1, 8), (1, 64), (8, 64))  # texts, tokens of each
_WARM_UP_RUNS = 3
_WARM_SHAPES_TOKENS = 1024  # of a warm-up batch, padding counted: full batches on a CPU have about as many


class TextModel(Protocol):
    """What serving needs of a model; `models.classifier.Model` is one."""

    @property
    def release(self) -> str:
        """The release's id."""
        ...

    @property
    def runtime(self) -> str:
        """What runs it."""
        ...

    @property
    def device(self) -> str:
        """Where it runs."""
        ...

    @property
    def slots(self) -> int:
        """How many batches may run at once."""
        ...

    @property
    def packs(self) -> bool:
        """Whether texts of unlike lengths cost no padding in one batch."""
        ...

    @property
    def heads(self) -> Mapping[str, Head]:
        """By task: the labels in the order of their scores."""
        ...

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise; a text longer than the model reads becomes several windows. Called on the tokeniser's thread."""
        ...

    def spans(self, text: str) -> list[list[Span]]:
        """Where in a text each token of each of its windows stands, in characters. Called on any thread."""
        ...

    def padded_tokens(self, lengths: Sequence[int]) -> int:
        """What a batch of windows of so many tokens comes to, padding counted."""
        ...

    def run(self, windows: Sequence[Sequence[int]]) -> Mapping[str, NDArray[np.float32]]:
        """By task: the scores of `Head.scores`, a row for each window. Called on `slots` threads at once."""
        ...


class AlertRule(NamedTuple):
    """Raise an alert when the score in `column` reaches `threshold`."""

    column: int
    label: str
    threshold: float
    policy: LabelPolicy


@dataclass(frozen=True)
class Served:
    """One task of a release, and what is decided on its labels."""

    task: Task
    release: str
    labels: tuple[str, ...]
    scope: Scope | None = None

    @cached_property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    @cached_property
    def review_below(self) -> float:
        """A person reviews a best score below it."""
        return self.task.review_below

    @cached_property
    def familiar_from(self) -> float | None:
        """A text that is less familiar is out of scope; None: the release does not know."""
        return None if self.scope is None else self.scope.familiar_from

    @cached_property
    def outside(self) -> int | None:
        """The column of the label for what is out of scope, if there is one."""
        return outside_column(self.labels)

    @cached_property
    def policies(self) -> tuple[LabelPolicy, ...]:
        """The policy of each label, in their order."""
        return tuple(self.task.policy(label) for label in self.labels)

    @cached_property
    def alert_rules(self) -> tuple[AlertRule, ...]:
        """Of the labels that can alert."""
        return tuple(
            AlertRule(column, self.labels[column], policy.alert_above, policy)
            for column, policy in enumerate(self.policies)
            if policy.alert_above is not None
        )

    @cached_property
    def routes(self) -> bool:
        """Whether events of this task go to queues."""
        return any(policy.queue for policy in self.task.labels.values())


@dataclass(frozen=True)
class Loaded:
    """A model in memory, the tasks it serves, and what batches cost: (padded tokens, seconds) of several sizes.

    `reference` loads the same release anew, for the reference runtime on the CPU: what serves while this model is ill.
    `sha256` is that of the release's manifest, if it came from one.
    `profiles` say by task what its texts were like when it was made; older releases have none.
    """

    model: TextModel
    served: tuple[Served, ...]
    costs: tuple[tuple[int, float], ...]
    reference: Callable[[], Loaded] | None = None
    sha256: str = ""  # of the release's manifest
    profiles: Mapping[str, Profile] = field(default_factory=dict, compare=False)
    challenges: bool = False  # it does not serve, but beside a champion or for a share of the keys

    @cached_property
    def tasks(self) -> frozenset[str]:
        """The names of those it serves."""
        return frozenset(one.name for one in self.served)

    @property
    def name(self) -> str:
        """Its tasks, as metrics and logs call it."""
        return "+".join(one.name for one in self.served) + ("@challenger" if self.challenges else "")


def serve(model: TextModel, tasks: Sequence[Task]) -> Loaded:
    """A model for some of its tasks, warmed up and measured."""
    _warm_shapes(model)
    return Loaded(model, _served(model, tasks), tuple(_cost(model, *size) for size in _WARM_UP_SIZES))


def with_tasks(loaded: Loaded, tasks: Sequence[Task]) -> Loaded:
    """The same model for other tasks of its: neither loaded nor measured again."""
    before = loaded.reference
    reference = before and (lambda: with_tasks(before(), tasks))
    return replace(loaded, served=_served(loaded.model, tasks), reference=reference)


def as_challenger(loaded: Loaded, challenges: bool = True) -> Loaded:
    """The same model, as one that does not serve but challenges the one that does, or no longer does."""
    before = loaded.reference
    reference = before and (lambda: replace(before(), challenges=challenges))
    return replace(loaded, challenges=challenges, reference=reference)


def _served(model: TextModel, tasks: Sequence[Task]) -> tuple[Served, ...]:
    heads = [(task, model.heads[task.name]) for task in tasks]
    return tuple(Served(task, model.release, head.labels, head.scope) for task, head in heads)


def _warm_shapes(model: TextModel) -> None:
    """Run every width of batch once, alone and full: runtimes prepare themselves for a shape when they first see it."""
    window = model.encode([_WARM_UP * _WARM_SHAPES_TOKENS])[0].windows[0]
    widths = [1 << power for power in range(3, 16) if 1 << power < len(window)]
    for width in [*widths, len(window)]:
        for texts in {1, max(1, _WARM_SHAPES_TOKENS // width)}:
            model.run([window[:width]] * texts)


def _cost(model: TextModel, texts: int, tokens: int) -> tuple[int, float]:
    window = model.encode([_WARM_UP * tokens])[0].windows[0][:tokens]
    fastest_s = float("inf")
    for _ in range(_WARM_UP_RUNS):
        started_s = time.perf_counter()
        model.run([window] * texts)
        fastest_s = min(fastest_s, time.perf_counter() - started_s)
    return model.padded_tokens([len(window)] * texts), fastest_s


def load_models(settings: Settings) -> list[Loaded]:
    """Load, verify, measure and warm up the releases that serve the tasks of the active sources.

    Tasks that share a release share one model: its encoder runs once for all of them.

    Raises:
        models.errors.ModelError: a release or task file is missing or wrong; the message says what to do.
    """
    by_directory: dict[Path, list[str]] = {}
    for name in settings.tasks:
        directory = find_release(name, settings.models.releases.get(name)).resolve()
        by_directory.setdefault(directory, []).append(name)
    found = []
    for directory, names in by_directory.items():
        loaded = load_release(settings, directory, names)
        metrics.model_serves(loaded, 1)
        log.info("%s: release %s on %s", loaded.name, loaded.model.release, loaded.model.runtime)
        found.append(loaded)
    return found


def load_release(settings: Settings, directory: Path, names: Sequence[str], runtime: str | None = None) -> Loaded:
    """Load, verify, measure and warm up one release for some of its tasks; `runtime` where it is known already.

    Raises:
        models.errors.ModelError: the release or a task file is wrong.
    """
    chosen = settings.models
    model = Model.load(directory, device=chosen.device, runtime=runtime or chosen.runtime, threads=chosen.threads)
    tasks = [task_of(settings, name) for name in names]
    return replace(
        serve(model, tasks),
        reference=partial(_reference, directory, chosen.threads, tasks),
        sha256=file_sha256(directory / MANIFEST),
        profiles=read_profiles(directory),
    )


def pinned_releases(settings: Settings) -> dict[str, str]:
    """What to add to the environment of workers: each release that is named in the model registry, fetched now.

    All workers then serve the same one, also those that start again while the registry is away or its alias has moved.

    Raises:
        models.errors.ModelError: it cannot be had, or is not what was registered.
    """
    named = {
        task: ref for task, ref in settings.models.releases.items() if task in settings.tasks and is_reference(ref)
    }
    return {
        f"STREAMGAUGE_MODELS__RELEASES__{task.upper()}": str(find_release(task, ref)) for task, ref in named.items()
    }


def _reference(directory: Path, threads: int | None, tasks: Sequence[Task]) -> Loaded:
    runtime = reference(precision_of(directory))
    return serve(Model.load(directory, device="cpu", runtime=runtime, threads=threads), tasks)


def task_of(settings: Settings, name: str) -> Task:
    """What these settings decide on a task. Raises BadTask."""
    file = settings.models.tasks.get(name)
    task = load_task(name if file is None else str(file))
    if task.name != name:
        raise BadTask(f'models.tasks.{name}: {file} is for the task {task.name!r}; write name = "{name}" in it')
    return task
