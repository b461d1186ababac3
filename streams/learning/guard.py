"""The watch over what is promoted: a job of its own that acts on labels and alarms, and says why on the releases topic.

    pairs and labels             -> sequential test -> the challenger promoted or withdrawn
                                                    -> the champion before serves again
    dead letters, workers' pages -> alarm           -> the champion before serves again

A promoted release is watched over until the time that its record names. What is taken back, and what a person put back,
is not: nothing goes back and forth by itself. The job keeps nothing: ended and begun anew it sees the same.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from models.errors import ModelError
from streams.events import Release
from streams.intake import BadInput, seconds_of
from streams.learning import promoting
from streams.learning.failure_counts import FailureCounts, Failures
from streams.learning.judge import Judge, Judged, acted_upon
from streams.learning.releases_topic import Standing, read_standing
from streams.learning.worker_pages import troubles
from streams.settings import RolloutSettings, Settings

BY = "streamgauge releases watch"  # who did it, where people read that
BEFORE_S = 3600.0  # so long before a promotion is what dead letters are compared with
RISE = 3.0  # times the share of dead letters before
PATIENCE = 3  # looks, one after the other, at which workers say that a release is broken

log = logging.getLogger(__name__)


class Act(NamedTuple):
    """What was done about a task, and why."""

    task: str
    what: Literal["promoted", "withdrawn", "rolled back"]
    release: str
    why: str


class Guard:
    """Looks after the releases of all tasks.

    Args:
        settings: the broker, the topics, `[rollout]`.
        clock: seconds since 1970.
        pages: what workers at these addresses say is wrong, by task.

    Raises:
        BrokerUnavailable: the broker cannot be reached, or topics are missing.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        pages: Callable[[Sequence[str]], Mapping[str, str]] = troubles,
    ) -> None:
        self._settings, self._clock, self._pages = settings, clock, pages
        self._judge = Judge(settings, settings.rollout.duel)
        self._counts = FailureCounts(settings, settings.rollout.watch_s + BEFORE_S)
        self._workers = settings.rollout.workers or (f"{settings.metrics.host}:{settings.metrics.port}",)
        self._broken: Counter[tuple[str, str]] = Counter()  # looks, by task and promotion
        self.judged: dict[str, Judged] = {}  # at the last look, by task

    def look(self) -> list[Act]:
        """Look once, and act; returns what was done.

        Raises:
            BrokerUnavailable, AccessRefused, DeliveryFailed: topics cannot be read or written.
            IntegrityError: the newest version of a data set is damaged.
        """
        now_s, roles = self._clock(), read_standing(self._settings)
        self._counts.read(now_s)
        self.judged = self._judge.judged(roles)
        watched = [one for (_, role), one in roles.items() if role == "champion" and _is_watched(one, now_s)]
        done = list[Act]()
        for task, why in self._alarms(watched, now_s).items():
            done += self._taken_back(roles, task, why)
        for task, found in self.judged.items():
            if not any(act.task == task for act in done):
                done += self._judged(roles, found, now_s)
        for act in done:
            log.warning("%s: %s %s: %s", act.task, act.release, act.what, act.why)
        return done

    def _alarms(self, watched: Sequence[Release], now_s: float) -> dict[str, str]:
        pages = self._pages(self._workers) if watched else {}
        broken = {(one["task"], one["promoted_at"]) for one in watched if one["task"] in pages}
        self._broken = Counter({its: self._broken[its] + 1 for its in broken})
        found = {task: pages[task] for (task, _), looks in self._broken.items() if looks >= PATIENCE}
        for one in watched:
            at_s = _moment(one["promoted_at"])
            now = self._counts.between(one["task"], one["release"], at_s, now_s)
            previous = one["previous"]
            former = previous["release"] if previous is not None else ""
            before = self._counts.between(one["task"], former, at_s - BEFORE_S, at_s)
            if fails_more(now, before, self._settings.rollout):
                found[one["task"]] = f"{now.dead} of {now.events} events became dead letters, before {before.share:.2%}"
        return found

    def _taken_back(self, roles: Standing, task: str, why: str) -> list[Act]:
        champion = roles[task, "champion"]
        if champion["previous"] is None or read_standing(self._settings).get((task, "champion")) != champion:
            return []  # nowhere to go, or somebody was faster
        promoting.take_back(self._settings, roles, task, BY, f"{champion['release']} is taken back: {why}")
        return [Act(task, "rolled back", champion["release"], why)]

    def _judged(self, roles: Standing, found: Judged, now_s: float) -> list[Act]:
        action, why, task = found.standing.action, found.standing.reason, found.task
        if action == "go on" and found.former and not _is_watched(roles[task, "champion"], now_s):
            promoting.withdraw(self._settings, roles, task)
            return [Act(task, "withdrawn", found.challenger, f"the watch over {found.champion} is over; {why}")]
        if action == "go on" or read_standing(self._settings) != roles:
            return []
        try:
            acted_upon(self._settings, roles, found, BY)
        except ModelError as error:  # such as a registry that is away: it is tried again at the next look
            log.error("%s: %s: %s", task, action, error)
            return []
        if action != "promote":
            return [Act(task, "withdrawn", found.challenger, why)]
        if found.former:
            return [Act(task, "rolled back", found.champion, why)]
        return [Act(task, "promoted", found.challenger, why)]


def fails_more(now: Failures, before: Failures, limits: RolloutSettings) -> bool:
    """Whether a release fails on more events than one may, and on more than the one before it did."""
    return now.dead >= limits.least_dead_letters and now.share > max(limits.most_dead_share, RISE * before.share)


def _is_watched(champion: Release, now_s: float) -> bool:
    return now_s < _moment(champion.get("watched_until", ""))


def _moment(written: str) -> float:
    """A time of a record, in seconds since 1970; the beginning of all when it is none."""
    try:
        return seconds_of(written, "the record")
    except BadInput:
        return 0.0
