"""Another release in a running worker: found, tried, loaded and warmed up beside the one that serves, then swapped in.

    releases topic -> find -> try in a child -> load, warm every shape -> the next slice of each partition
                        \\________ broken: the alarm, and what serves goes on ________/

From one slice to the next of a partition the release changes, never within one: a slice's texts go to one scorer, and
each scorer makes its own batches. The scorer before finishes what it was given and is let go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple, Protocol

from models.errors import IntegrityError, ModelError, RegistryUnavailable
from models.probation import tried
from models.releases import MANIFEST, file_sha256, find_release
from streams import metrics
from streams.device import Device
from streams.events import Release, ReleaseRef
from streams.learning.releases_topic import Key, ReleasesTopic, Standing, read_standing
from streams.live import Loaded, as_challenger, load_release, task_of, with_tasks
from streams.scoring import Scorer
from streams.serving import Challenge
from streams.settings import Settings
from streams.trial import told

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_AGAIN_S = 60.0  # what could not be fetched is tried again
Prepare = Callable[[Release, Sequence[str]], Loaded]  # of a record, for these tasks: loaded and warm


def located(ref: ReleaseRef, task: str) -> Path:
    """The directory of the release that a record means.

    Raises:
        IntegrityError: what is there is another release than the record's.
        ModelError: it is not there.
    """
    directory = find_release(task, ref["reference"]).resolve()
    found = file_sha256(directory / MANIFEST)
    if found != ref["sha256"]:
        raise IntegrityError(
            f"{directory / MANIFEST}: is not the manifest that was promoted (sha256 {found[:12]}..., promoted was "
            f"{ref['sha256'][:12]}...)"
        )
    return directory


def prepare(settings: Settings, record: Release, tasks: Sequence[str]) -> Loaded:
    """Find the release of a record, try it in a process of its own, then load and warm it here. Blocks for seconds.

    Raises:
        ModelError: it cannot serve; what is wrong and what to do.
    """
    directory, chosen = located(record, record["task"]), settings.models
    runtime = tried(directory, chosen.device, chosen.runtime, chosen.threads)
    return load_release(settings, directory, tasks, runtime)


def load_standing(settings: Settings, load: Callable[[Settings], Sequence[Loaded]]) -> Sequence[Loaded]:
    """The models to start with: the champions of the releases topic; where one is broken, the champion before it, and
    if that is broken too, what the settings name. Blocks.

    Raises:
        ModelError: what the settings name cannot serve either.
        BrokerUnavailable, AccessRefused: the topic cannot be read.
    """
    champions = {task: one for (task, role), one in read_standing(settings).items() if role == "champion"}
    found = {task: _startable(settings, task, champions[task]) for task in settings.tasks if task in champions}
    pinned = {task: str(directory) for task, directory in found.items() if directory is not None}
    releases = {**settings.models.releases, **pinned}
    return load(settings.model_copy(update={"models": settings.models.model_copy(update={"releases": releases})}))


def _startable(settings: Settings, task: str, record: Release) -> Path | None:
    chosen = settings.models
    for ref in (record, record["previous"]):
        if ref is None:
            continue
        try:
            directory = located(ref, task)
            tried(directory, chosen.device, chosen.runtime, chosen.threads)
            return directory
        except ModelError as error:
            metrics.RELEASE_REFUSED.labels(task, "champion").set(1)
            log.error("%s: release %s cannot serve: %s", task, ref["release"], error)
    return None


class _Pipeline(Protocol):
    def serve_with(self, scorers: Sequence[Scorer], challenges: Sequence[Challenge] = ()) -> None: ...


class _Challenger(NamedTuple):
    record: Release
    challenge: Challenge


def _meant(record: Release) -> tuple[str, str, str]:
    """What was asked for, and when: asked for again, it is tried again."""
    return record["reference"], record["sha256"], record["promoted_at"]


class Rollout:
    """Keeps the scorers of a worker at what the releases topic says.

    Args:
        settings: of the worker.
        device: runs the scorers.
        pipelines: by source.
        scorers: that serve at the start.
        scorer: makes one for a model.
        prepare: brings the model of a record; called on a thread.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        device: Device,
        pipelines: Mapping[str, _Pipeline],
        scorers: Sequence[Scorer],
        scorer: Callable[[Loaded], Scorer],
        prepare: Prepare,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._device = device
        self._pipelines = pipelines
        self._scorers = list(scorers)
        self._scorer = scorer
        self._prepare = prepare
        self._clock = clock
        self._broken: dict[tuple[str, str, str], tuple[str, float]] = {}  # what is, why, and when to try it again
        self._refused: dict[Key, Release] = {}
        self._challengers: dict[str, _Challenger] = {}  # by task
        for task in settings.tasks:
            metrics.RELEASE_SWAPS.labels(task)
            for role in ("champion", "challenger"):
                metrics.RELEASE_REFUSED.labels(task, role)
            metrics.SHADOW_SKIPPED.labels(task)

    async def run(self) -> None:
        """Follow the topic until cancelled."""
        topic = await asyncio.to_thread(ReleasesTopic, self._settings)
        await asyncio.to_thread(topic.read)
        while True:
            topic.poll()
            await self.follow(topic.standing)
            await asyncio.sleep(_LOOK_S)

    async def follow(self, standing: Standing) -> None:
        """Bring what scores to what stands, as far as it can be loaded; what serves meanwhile goes on serving."""
        before = [scorer.loaded for scorer in self._scorers]
        await self._follow_champions(standing)
        for scorer in list(self._scorers):
            for task in scorer.loaded.tasks:
                await self._follow_challenger(task, scorer.loaded, standing.get((task, "challenger")), before)

    async def _follow_champions(self, standing: Standing) -> None:
        serving = {one.name: scorer.loaded for scorer in self._scorers for one in scorer.loaded.served}
        changed = list[str]()
        for task in list(serving):
            record = standing.get((task, "champion"))
            if record is None or serving[task].sha256 == record["sha256"]:
                self._accept((task, "champion"))
                continue
            found = self._here(record, serving.values()) or await self._prepared(record)
            if found is not None:
                serving[task] = found
                changed.append(task)
        if changed:
            self._swap(serving)
        for task in changed:
            self._accept((task, "champion"))
            metrics.RELEASE_SWAPS.labels(task).inc()
            log.info("%s: release %s serves on %s", task, serving[task].model.release, serving[task].model.runtime)

    async def _follow_challenger(
        self, task: str, champion: Loaded, record: Release | None, before: Sequence[Loaded]
    ) -> None:
        there = self._challengers.get(task)
        if record is None or record["sha256"] == champion.sha256:
            self._accept((task, "challenger"))
            self._challenge(task, None)
            return
        if there is not None and there.record["sha256"] == record["sha256"]:
            if there.record == record and not there.challenge.scorer.ladder.holding:
                return
            loaded: Loaded | None = there.challenge.scorer.loaded
            if there.challenge.scorer.ladder.holding:
                self._broken[_meant(record)] = ("nothing can run it", inf)
                loaded = None
        else:
            loaded = self._here(record, before)  # what served until now goes on as the challenger
        loaded = loaded if loaded is not None else await self._prepared(record)
        self._challenge(task, None if loaded is None else self._challenger(loaded, record))

    def _challenger(self, loaded: Loaded, record: Release) -> _Challenger:
        task, mode = record["task"], record["mode"]
        loaded = as_challenger(with_tasks(loaded, [task_of(self._settings, task)]))
        challenge = Challenge(self._scorer(loaded), task, record["release"], mode, record["share"])
        self._accept((task, "challenger"))
        log.info("%s: release %s scores %.0f%% of the keys as %s", task, record["release"], 100 * record["share"], mode)
        return _Challenger(record, challenge)

    def _challenge(self, task: str, challenger: _Challenger | None) -> None:
        """Let a task have this challenger from the next slices on, or none."""
        before = self._challengers.pop(task, None)
        if before is None and challenger is None:
            return
        if challenger is not None:
            self._challengers[task] = challenger
            self._device.add(challenger.challenge.scorer)
        self._equip()
        for mode in ("shadow", "canary"):
            on = challenger is not None and challenger.challenge.mode == mode
            metrics.CHALLENGER.labels(task, mode).set(challenger.challenge.share if challenger and on else 0)
        if before is not None:
            self._device.retire(before.challenge.scorer)
            log.info("%s: the challenger %s scores no more", task, before.challenge.release)

    def _equip(self) -> None:
        challenges = [one.challenge for one in self._challengers.values()]
        for name, pipeline in self._pipelines.items():
            tasks = self._settings.sources[name].tasks
            pipeline.serve_with(
                [scorer for scorer in self._scorers if scorer.serves(tasks)],
                [one for one in challenges if one.task in tasks],
            )

    def serving(self, task: str) -> Loaded:
        """What serves a task now."""
        return next(scorer.loaded for scorer in self._scorers if scorer.serves([task]))

    def _here(self, record: Release, serving: Iterable[Loaded]) -> Loaded | None:
        """The release of a record, if it is in memory: for another task, or as the challenger."""
        loaded = [*serving, *(one.challenge.scorer.loaded for one in self._challengers.values())]
        alike = (one for one in loaded if one.sha256 == record["sha256"] and record["task"] in one.model.heads)
        return next(alike, None)

    async def _prepared(self, record: Release) -> Loaded | None:
        """The model of a record, or None while it is known to be broken."""
        meant, task = _meant(record), record["task"]
        why, until_s = self._broken.get(meant, ("", 0.0))
        if self._clock() >= until_s:
            log.info("%s: loading release %s, promoted by %s", task, record["release"], record["promoted_by"])
            started_s = self._clock()
            try:
                found = await asyncio.to_thread(self._prepare, record, [task])
            except Exception as error:  # whatever native libraries raise: what serves must go on
                why = str(error) if isinstance(error, ModelError) else told(error)
                self._broken[meant] = (
                    why,
                    self._clock() + (_AGAIN_S if isinstance(error, RegistryUnavailable) else inf),
                )
            else:
                log.info("%s: release %s is warm, after %.1f s", task, record["release"], self._clock() - started_s)
                return found
        self._refuse(record, why)
        return None

    def _refuse(self, record: Release, why: str) -> None:
        key: Key = (record["task"], record["role"])
        if self._refused.get(key) != record:
            log.error(
                "%s: release %s cannot serve, what served goes on: %s; promote another, or roll back",
                record["task"], record["release"], why,
            )  # fmt: skip
        self._refused[key] = record
        metrics.RELEASE_REFUSED.labels(*key).set(1)

    def _accept(self, key: Key) -> None:
        self._refused.pop(key, None)
        metrics.RELEASE_REFUSED.labels(*key).set(0)

    def _swap(self, serving: Mapping[str, Loaded]) -> None:
        """Let each task be scored by its model from the next slices on; the tasks of one model share a scorer."""
        models = {id(one.model): one for one in serving.values()}
        there = {(id(one.loaded.model), one.loaded.tasks): one for one in self._scorers}
        now = []
        for model, loaded in models.items():
            tasks = frozenset(task for task, one in serving.items() if id(one.model) == model)
            same = (model, tasks)
            now.append(there.pop(same) if same in there else self._added(loaded, tasks))
        self._scorers = now
        self._equip()
        for scorer in there.values():
            self._device.retire(scorer)
            metrics.release_gone(scorer.loaded)
        for scorer in now:
            metrics.model_serves(scorer.loaded, 1)

    def _added(self, loaded: Loaded, tasks: frozenset[str]) -> Scorer:
        if loaded.tasks != tasks:
            loaded = with_tasks(loaded, [task_of(self._settings, name) for name in sorted(tasks)])
        if loaded.challenges:
            loaded = as_challenger(loaded, False)
        scorer = self._scorer(loaded)
        self._device.add(scorer)
        return scorer
