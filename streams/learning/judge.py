"""The challenger judged by the labels that came since: promoted, taken back, or left where it is.

    topic shadow (what both said) + labels of people (the data set of the task) -> sequential test -> topic releases

What both said is drawn by the event's key alone, so it speaks for neither. The labels must be drawn so, too: those that
people gave because the champion was in doubt flatter the challenger. See `models.learning.sequential` for the test; it
may be asked after every label.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from pydantic import TypeAdapter, ValidationError

from models.errors import ReleaseNotFound
from models.learning.opinions import Opinion
from models.learning.sequential import Duel, DuelSettings, Standing, standing
from streams.events import Coordinates, ShadowScore
from streams.learning import promoting
from streams.learning.releases_topic import read_standing
from streams.reading import TopicReader
from streams.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import Message

log = logging.getLogger(__name__)

_PAIR: TypeAdapter[ShadowScore] = TypeAdapter(ShadowScore)


class Judged(NamedTuple):
    """What the labels say of a challenger, and what was done about it."""

    task: str
    champion: str
    challenger: str
    standing: Standing
    done: bool


def judge(settings: Settings, task: str, duel: DuelSettings, act: bool = False) -> Judged:
    """Judge a task's challenger; with `act` promote it, or withdraw it when it is worse or nothing can be told.

    Raises:
        ReleaseNotFound: the task has no challenger, or no promoted champion.
        BrokerUnavailable, AccessRefused: the topics cannot be read or written.
        IntegrityError: the data set's newest version is damaged.
    """
    from models.learning.store import DatasetStore

    roles = read_standing(settings)
    challenger, champion = roles.get((task, "challenger")), roles.get((task, "champion"))
    if challenger is None:
        raise ReleaseNotFound(f"{task}: has no challenger; streamgauge releases promote {task} REF --shadow SHARE")
    pairs = _pairs(settings, task, challenger["release"], champion and champion["release"])
    found = standing(duels(pairs, DatasetStore(task).opinions()), duel)
    by = f"sequential test, {found.reason}"
    acted = act and found.action != "go on"
    if acted and found.action == "promote":
        promoting.promote(settings, task, None, by)
    elif acted:
        promoting.roll_back(settings, task, by)
    who = champion["release"] if champion else next((pair["champion"]["release"] for pair in pairs.values()), "")
    return Judged(task, who, challenger["release"], found, acted)


def duels(pairs: Mapping[str, ShadowScore], opinions: Iterable[Opinion]) -> list[Duel]:
    """What both releases said of the texts that have a label, in the order in which the labels came.

    Args:
        pairs: by "topic/partition/offset" of the event.
        opinions: labels by the same keys, in any order; those of other texts are passed over.
    """
    labelled = sorted((one for one in opinions if one.key in pairs), key=lambda one: (one.labelled_at_s, one.annotator))
    return [
        Duel(one.text, one.label, pairs[one.key]["champion"]["label"], pairs[one.key]["challenger"]["label"])
        for one in labelled
    ]


def _pairs(settings: Settings, task: str, challenger: str, champion: str | None) -> dict[str, ShadowScore]:
    """Of these two releases, by the event's coordinates; without a champion in the topic, of whichever served."""
    reader = TopicReader(settings, settings.topics.shadow, settings.broker.group)
    found: dict[str, ShadowScore] = {}
    for message in reader.messages(reader.ranges):
        pair = _pair(message)
        if pair is None or pair["task"] != task or pair["challenger"]["release"] != challenger:
            continue
        if champion is None or pair["champion"]["release"] == champion:
            source = pair["source"]
            found[str(Coordinates(source["topic"], source["partition"], source["offset"]))] = pair
    return found


def _pair(message: Message) -> ShadowScore | None:
    try:
        return _PAIR.validate_json(message.value() or b"")
    except ValidationError:
        log.warning("%s is no pair of scores, passed over", Coordinates.of(message))
        return None
