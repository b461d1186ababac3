"""The watch over drift: a job of its own that reads predictions and labels, raises alarms, and asks people for labels.

    predictions, texts of a sample  ->  how each release stands  ->  alarms (`drift`), review requests (`review`)
    people's labels (data set)      ->  whether its scores can be trusted

Nothing of it is kept on disk: what the window holds is read again at the start, open alarms and what was asked are in
the topics. Ids are stable, so that what is sent twice is known for the same.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from models.errors import ModelError
from models.learning.alarms import Alarm, Standing, Watch
from models.learning.estimated_accuracy import Labelled, Realised, realised
from models.learning.opinions import Opinion
from models.learning.selection import DailyBudget
from models.learning.store import DatasetStore
from models.releases import find_release, read_manifest
from models.tasks import load_task
from streams import metrics
from streams.events import Coordinates, DriftAlarm, Event
from streams.learning.alarm_call import alarm_in
from streams.learning.asked import AskedBefore, asked_before, key_of
from streams.learning.catching_up import CatchingUp
from streams.learning.drift_wire import alarm_record, id_of, open_alarms, review_request, seen_in
from streams.learning.outbox import Outbox
from streams.learning.releases_topic import Standing as Roles
from streams.learning.releases_topic import read_standing
from streams.learning.rollout import located
from streams.learning.source_texts import SourceTexts
from streams.learning.watched import Reference, Seen, Watched
from streams.reading import TopicReader
from streams.serving import in_share
from streams.settings import Settings

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 2000
READ_BACK = 100_000  # predictions of a partition, at the start: there may be more in the window, but they say the same
MOST_AT_ONCE = 50  # labels asked for at one look, unless an alarm opens
ALARM_SHARE = 0.5  # of what the day has left is asked for when an alarm opens

Loads = Callable[[str, str], Reference]  # by task and release


@dataclass
class TaskWatch:
    """What is remembered of one task."""

    name: str
    budget: DailyBudget
    watch: Watch = field(default_factory=Watch)
    by_release: dict[str, Watched | None] = field(default_factory=dict)  # None: nothing to compare with
    latest: str = ""  # the release of the newest prediction
    before: AskedBefore = field(default_factory=AskedBefore)
    version: int = 0
    opinions: list[Opinion] = field(default_factory=list)
    shown: metrics.WatchMetrics | None = None


class DriftWatch:
    """Looks at what has come since the last look.

    Args:
        settings: the broker, the topics, `[drift]`.
        load: what to compare a release with; raises ModelError where there is nothing.
        clock: seconds since 1970.
        silent: look only: send nothing.

    Raises:
        BrokerUnavailable: the broker cannot be reached, or topics are missing.
    """

    def __init__(
        self,
        settings: Settings,
        load: Loads | None = None,
        clock: Callable[[], float] = time.time,
        silent: bool = False,
    ) -> None:
        self._settings = settings
        self._load = load or (lambda task, release: loaded_reference(settings, task, release))
        self._clock = clock
        self._silent = silent
        self._group = f"{settings.broker.group}-drift"
        now_s = clock()
        asked = asked_before(settings, self._group, now_s)
        self._tasks = {
            name: TaskWatch(
                name,
                DailyBudget(settings.drift.labels_a_day, asked[name].today if name in asked else 0, now_s),
                open_alarms(settings, self._group).get(name, Watch()),
                before=asked.get(name, AskedBefore()),
            )
            for name in settings.tasks
        }
        self._roles: Roles = {}
        self._since_s = now_s - settings.drift.window_s
        self._offsets: dict[int, int] = {}
        self._alarms = CatchingUp(settings, settings.topics.drift, self._group)
        self._outbox = Outbox(settings)

    def look(self) -> list[Standing]:
        """Read on, compare, raise and resolve alarms, ask for labels; returns how the release of each task stands.

        Raises:
            BrokerUnavailable, AccessRefused, DeliveryFailed: topics cannot be read or written.
        """
        now_s = self._clock()
        self._roles = read_standing(self._settings)
        self._read_predictions()
        lacking = self._lacking_labels()
        found = []
        with SourceTexts(self._settings, self._group, self._clock) as texts:
            for task in self._tasks.values():
                watched = task.by_release.get(task.latest)
                if watched is None:
                    continue
                watched.read(_texts_at(texts, watched.wanted))
                self._read_labels(task)
                standing = watched.standing(now_s, labelled(task, task.latest), len(task.opinions))
                found.append(standing)
                if self._silent:
                    continue
                alarm = self._judge(task, standing, now_s)
                urgent = alarm is not None and alarm.state == "open"
                self._ask(task, watched, texts, now_s, urgent or task.name in lacking)
        self._outbox.flush()
        return found

    def _lacking_labels(self) -> set[str]:
        """The tasks whose open alarm wants a successor, for which a retraining has said since that it lacks labels."""
        last: dict[str, DriftAlarm] = {}
        for message in self._alarms.new():
            if (said := alarm_in(message.value())) is not None:
                last[said["task"]] = said
        ours = {name: task.watch.alarm for name, task in self._tasks.items()}
        return {
            name
            for name, said in last.items()
            if (its := ours.get(name)) is not None
            and (its.wants, said["wants"]) == ("retrain", "labels")
            and said["id"] == id_of(its)
        }

    def _read_predictions(self) -> None:
        reader = TopicReader(self._settings, self._settings.topics.predictions, self._group)
        ranges = {
            part: (max(low, self._offsets.get(part, high - READ_BACK)), high)
            for part, (low, high) in reader.ranges.items()
        }
        batch: list[Seen] = []
        for message in reader.messages(ranges):
            if message.timestamp()[1] >= 1000 * self._since_s:
                batch += seen_in(message)
            if len(batch) >= ROWS_AT_ONCE:
                self._saw(batch)
                batch = []
        self._saw(batch)
        self._offsets = {part: high for part, (_, high) in ranges.items()}

    def _saw(self, batch: Sequence[Seen]) -> None:
        by_release: dict[tuple[str, str], list[Seen]] = defaultdict(list)
        for one in batch:
            by_release[one.prediction["task"], one.prediction["release"]].append(one)
        for (name, release), predictions in by_release.items():
            task = self._tasks.get(name)
            if task is None:
                continue
            challenger = self._roles.get((name, "challenger"))
            if challenger is not None and challenger["release"] == release and task.latest not in ("", release):
                if (champion := task.by_release.get(task.latest)) is not None:  # a canary: the champion is watched on
                    champion.offer(predictions)
                continue
            if release not in task.by_release:
                task.by_release = {one: its for one, its in task.by_release.items() if one == task.latest}
                task.by_release[release] = self._watched(name, release)
            task.latest = release
            watched = task.by_release[release]
            if watched is not None:
                watched.saw(predictions)

    def _watched(self, task: str, release: str) -> Watched | None:
        try:
            return Watched(task, self._load(task, release), self._settings.drift.window_s)
        except ModelError as error:
            log.warning("task %s: release %s is not compared: %s", task, release, error)
            return None

    def _read_labels(self, task: TaskWatch) -> None:
        store = DatasetStore(task.name)
        newest = next(reversed(store.numbers()), 0)
        if newest != task.version:
            task.version, task.opinions = newest, store.opinions(newest)

    def _judge(self, task: TaskWatch, standing: Standing, now_s: float) -> Alarm | None:
        task.watch, alarm = task.watch.looked(standing, self._settings.drift.labels_to_retrain, now_s)
        self._shown(task, standing)
        if alarm is not None:
            self._outbox.send(self._settings.topics.drift, alarm.task, alarm_record(alarm, standing, now_s), now_s)
            log.warning("task %s: drift %s: %s", alarm.task, alarm.state, ", ".join(alarm.moved) or "nothing moved")
        return alarm

    def _shown(self, task: TaskWatch, standing: Standing) -> None:
        if task.shown is None or task.shown.release != standing.release:
            if task.shown is not None:
                task.shown.forget()
            task.shown = metrics.WatchMetrics(task.name, standing.release)
        task.shown.stands(standing, realised_of_random(task), task.watch.alarm is not None)

    def _ask(self, task: TaskWatch, watched: Watched, texts: SourceTexts, now_s: float, urgent: bool) -> None:
        labels = min(MOST_AT_ONCE, task.budget.allowed(now_s))
        if urgent:
            labels = max(labels, int(ALARM_SHARE * task.budget.left(now_s)))
        if not labels:
            return
        places = [one.at for one in watched.candidates if key_of(one.prediction["source"]) not in task.before.keys]
        compared = self._compared(task.name)
        for asked in watched.ask(_texts_at(texts, places), labels, int(now_s), compared):
            request = review_request(asked)
            self._outbox.send(self._settings.topics.review, request["event_id"], request, now_s)
            task.before.keys[key_of(request["source"])] = asked.pick.why
            task.budget.spend(1, now_s)
            metrics.LABELS_ASKED.labels(task.name, asked.pick.why).inc()

    def _compared(self, task: str) -> Callable[[Seen], bool] | None:
        """Which events the challenger of a task is compared on; None without a challenger."""
        record = self._roles.get((task, "challenger"))
        if record is None:
            return None
        release, share = record["release"], record["share"]
        return lambda seen: in_share(seen.key, release, share)


def loaded_reference(settings: Settings, task: str, release: str) -> Reference:
    """A release that predictions name: the one of the settings, one of this machine, or what was promoted.

    Raises:
        ModelError: it is not there, damaged, or older than profiles.
        BrokerUnavailable: the releases topic cannot be read.
    """
    named = settings.models.releases.get(task)
    directory = find_release(task, named) if named else None
    if directory is None or read_manifest(directory).release != release:
        roles = read_standing(settings).values()
        promoted = next((one for one in roles if (one["task"], one["release"]) == (task, release)), None)
        directory = located(promoted, task) if promoted else find_release(task, release)
    return Reference.load(directory, load_task(str(settings.models.tasks.get(task, task))))


def labelled(task: TaskWatch, release: str) -> Realised | None:
    """What people's labels say of a release's predictions, whyever they were asked."""
    return realised(_rows(one for one in task.opinions if one.release == release))


def realised_of_random(task: TaskWatch) -> Realised | None:
    """The same of the texts that were drawn at random: how often it is right on what comes."""
    drawn = (one for one in task.opinions if one.release == task.latest and task.before.keys.get(one.key) == "random")
    return realised(_rows(drawn))


def _rows(opinions: Iterable[Opinion]) -> list[Labelled]:
    return [
        Labelled(one.label == one.predicted, one.score)
        for one in opinions
        if one.predicted is not None and one.score is not None
    ]


def _texts_at(texts: SourceTexts, places: Sequence[Coordinates]) -> dict[Coordinates, str]:
    return {at: one.text for at, one in texts.find(places).items() if isinstance(one, Event)}
