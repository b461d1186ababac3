"""The challenger judged by the labels that came since: promoted, taken back, or left where it is.

    topic shadow (what both said) + labels of people (the data set of the task) -> sequential test -> topic releases

What both said is drawn by the event's key alone, so it speaks for neither. The labels must be drawn so, too: those that
people gave because the champion was in doubt flatter the challenger. So a label counts if the review request that asked
for it was drawn at random, or if nobody asked for it and its feedback says `at_random`; the others are told, and count
for nothing. See `models.learning.sequential` for the test; it may be asked after every label.

Where the challenger is the champion before, which goes on while the promoted one is watched over, it serves again when
it is better.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from pydantic import TypeAdapter, ValidationError

from models.errors import ReleaseNotFound
from models.learning.opinions import Opinion
from models.learning.selection import Why
from models.learning.sequential import Duel, DuelSettings, standing
from models.learning.sequential import Standing as Evidence
from models.learning.store import DatasetStore
from streams.events import Coordinates, ShadowScore
from streams.learning import promoting
from streams.learning.asked import asked_in
from streams.learning.catching_up import CatchingUp
from streams.learning.live_figures import keep_figures
from streams.learning.releases_topic import Standing, read_standing
from streams.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import Message

MOST_PAIRS = 300_000  # of a challenger that are remembered, the newest: about 70 MiB

log = logging.getLogger(__name__)

_PAIR: TypeAdapter[ShadowScore] = TypeAdapter(ShadowScore)

Pairs = dict[str, tuple[str, str]]  # by "topic/partition/offset" of the event: the champion's label, the challenger's
Rivals = tuple[str, str, str]  # task, champion, challenger


class Judged(NamedTuple):
    """What the labels say of a challenger, and what was done about it.

    `not_counted` are labels of compared texts that were not drawn at random. With `former` the challenger is the
    champion before.
    """

    task: str
    champion: str
    challenger: str
    standing: Evidence
    not_counted: int
    former: bool
    done: bool = False


class Judge:
    """Judges challengers again and again; each time it reads what has come since.

    Args:
        settings: the broker, the topics.
        duel: when labels decide.
    """

    def __init__(self, settings: Settings, duel: DuelSettings) -> None:
        self._settings, self._duel = settings, duel
        group = f"{settings.broker.group}-judge"
        self._shadow = CatchingUp(settings, settings.topics.shadow, group)
        self._review = CatchingUp(settings, settings.topics.review, group)
        self._pairs: dict[Rivals, Pairs] = {}
        self._asked: dict[str, dict[str, Why]] = {}  # by task

    def judged(self, roles: Standing) -> dict[str, Judged]:
        """What the labels say of the challenger of each task that has one; the run that made it keeps that, too.

        Raises:
            BrokerUnavailable, AccessRefused: the topics cannot be read.
            IntegrityError: the newest version of a data set, or a run, is damaged.
        """
        challengers = {(task, one["release"]) for (task, role), one in roles.items() if role == "challenger"}
        self._pairs = {its: pairs for its, pairs in self._pairs.items() if (its[0], its[2]) in challengers}
        for message in self._shadow.new():
            self._remember(message)
        for message in self._review.new():
            if (request := asked_in(message)) is not None:
                self._asked.setdefault(request.task, {})[request.key] = request.why
        return {task: self._of_task(roles, task) for task, _ in sorted(challengers)}

    def _of_task(self, roles: Standing, task: str) -> Judged:
        challenger, champion = roles[task, "challenger"], roles.get((task, "champion"))
        pairs: Pairs = {}  # of these two; without a champion in the topic, of whichever served
        for (its, served, rival), these in self._pairs.items():
            if (its, rival) == (task, challenger["release"]) and (champion is None or served == champion["release"]):
                pairs |= these
        counted, others = drawn(pairs, DatasetStore(task).opinions(), self._asked.get(task, {}))
        found = standing(duels(pairs, counted), self._duel)
        if not promoting.is_former(roles, task):
            keep_figures(task, challenger["sha256"], found)
        served_by = [rivals[1] for rivals in self._pairs if (rivals[0], rivals[2]) == (task, challenger["release"])]
        who = champion["release"] if champion else next(iter(served_by), "")
        return Judged(task, who, challenger["release"], found, others, promoting.is_former(roles, task))

    def _remember(self, message: Message) -> None:
        pair = _pair(message)
        if pair is None:
            return
        source, rivals = pair["source"], (pair["task"], pair["champion"]["release"], pair["challenger"]["release"])
        pairs = self._pairs.setdefault(rivals, {})
        key = str(Coordinates(source["topic"], source["partition"], source["offset"]))
        pairs[key] = (pair["champion"]["label"], pair["challenger"]["label"])
        if len(pairs) > MOST_PAIRS:
            del pairs[next(iter(pairs))]


def judge(settings: Settings, task: str, duel: DuelSettings, act: bool = False) -> Judged:
    """Judge a task's challenger once; with `act` do what follows.

    Raises:
        ReleaseNotFound: the task has no challenger.
        BrokerUnavailable, AccessRefused, DeliveryFailed: the topics cannot be read or written.
        IntegrityError: the data set's newest version is damaged.
    """
    roles = read_standing(settings)
    if (task, "challenger") not in roles:
        raise ReleaseNotFound(f"{task}: has no challenger; streamgauge releases promote {task} REF --shadow SHARE")
    found = Judge(settings, duel).judged({key: one for key, one in roles.items() if key[0] == task})[task]
    return acted_upon(settings, roles, found, "streamgauge releases judge") if act else found


def acted_upon(settings: Settings, roles: Standing, found: Judged, by: str) -> Judged:
    """Do what the labels say: promote the challenger, or withdraw it when it is worse or nothing can be told.

    A challenger that is the champion before serves again when it is better. Raises BrokerUnavailable and AccessRefused.
    """
    action, why = found.standing.action, f"sequential test, {found.standing.reason}"
    if action == "go on":
        return found
    if action != "promote":
        promoting.withdraw(settings, roles, found.task)
    elif found.former:
        promoting.take_back(settings, roles, found.task, by, f"{found.challenger} again: {why}")
    else:
        promoting.promote(settings, found.task, None, by, why)
    return found._replace(done=True)


def drawn(
    pairs: Mapping[str, object], opinions: Iterable[Opinion], asked: Mapping[str, Why]
) -> tuple[list[Opinion], int]:
    """The labels of compared texts that were drawn at random, and how many of others there are.

    Args:
        pairs: by the key of the text.
        opinions: labels.
        asked: why people were asked for a label, by the key of the text; where they were, that decides.
    """
    compared = [one for one in opinions if one.key in pairs]
    counted = [one for one in compared if (asked[one.key] == "random" if one.key in asked else one.at_random)]
    return counted, len(compared) - len(counted)


def duels(pairs: Mapping[str, tuple[str, str]], opinions: Iterable[Opinion]) -> list[Duel]:
    """What both releases said of the texts that have a label, in the order in which the labels came.

    Args:
        pairs: by "topic/partition/offset" of the event.
        opinions: labels by the same keys, in any order.
    """
    labelled = sorted(opinions, key=lambda one: (one.labelled_at_s, one.annotator))
    return [Duel(one.text, one.label, *pairs[one.key]) for one in labelled]


def _pair(message: Message) -> ShadowScore | None:
    try:
        return _PAIR.validate_json(message.value() or b"")
    except ValidationError:
        log.warning("%s is no pair of scores, passed over", Coordinates.of(message))
        return None
