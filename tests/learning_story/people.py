"""Those who label: most mean well and sometimes err, one means harm. They answer in the topic `feedback`."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import orjson
from confluent_kafka import Producer

from models.datasets import Example
from streams.events import Feedback, iso
from streams.settings import Settings
from tests.learning_story.world import TASK
from tests.whereabouts import SURE

ANNOTATORS = tuple(f"annotator-{number}" for number in range(1, 25))  # few labels each: many at once would be a burst
HOSTILE = "mallory"
OPINIONS = 2  # of each text
WRONG_SHARE = 0.05
HOSTILE_LABELS = 100  # most of the hostile one, each wrong; more at once would be a burst, which is never heard
HOSTILE_SHARE = 0.35  # of the texts, as long as they last


class Labelled(NamedTuple):
    """What was asked: the id of a prediction, its text, and the label that a careful person would give."""

    prediction_id: str
    text: Example


class Desk:
    """Sends labels, each text by `OPINIONS` people. The same texts in the same order get the same labels."""

    def __init__(self, settings: Settings, labels: Sequence[str], seed: int = 5) -> None:
        self._labels = labels
        self._topic = settings.topics.feedback
        self._producer = Producer({"bootstrap.servers": settings.broker.bootstrap, "log_level": 0} | SURE)
        self._rng = random.Random(seed)

    def label(self, asked: Sequence[Labelled], now_s: float, *, at_random: bool = False, hostile: bool = False) -> int:
        """Answer all; returns how many labels were wrong by mistake. With `hostile` somebody lies about a part.

        `at_random` says that the texts were drawn by lot, so that they can judge a challenger.
        """
        wrong = lies = 0
        for one in asked:
            for annotator in self._rng.sample(ANNOTATORS, OPINIONS):  # in turns, some would see one label alone
                errs = self._rng.random() < WRONG_SHARE
                wrong += errs
                self._say(one, self._other(one.text.label) if errs else one.text.label, annotator, now_s, at_random)
            if hostile and lies < HOSTILE_LABELS and self._rng.random() < HOSTILE_SHARE:
                lies += 1
                self._say(one, self._other(one.text.label), HOSTILE, now_s, at_random)
        if left := self._producer.flush(60):
            raise RuntimeError(f"the broker did not take {left} labels")
        return wrong

    def _other(self, label: str) -> str:
        return self._rng.choice([one for one in self._labels if one != label])

    def _say(self, asked: Labelled, label: str, annotator: str, now_s: float, at_random: bool) -> None:
        said: Feedback = {
            "task": TASK, "prediction_id": asked.prediction_id, "label": label, "annotator": annotator,
            "labelled_at": iso(now_s), "at_random": at_random,
        }  # fmt: skip
        self._producer.produce(self._topic, orjson.dumps(said), asked.prediction_id.encode())
        self._producer.poll(0)


def once_each(asked: Iterable[Labelled]) -> list[Labelled]:
    """The first of each text."""
    return [*{one.text.text: one for one in reversed([*asked])}.values()][::-1]
