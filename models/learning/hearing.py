"""Who is heard, and on what label those who are heard agree, text by text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.datasets import Example
from models.label_errors import Suspect
from models.learning.annotators import Agreed, Votes, agreed, grades
from models.learning.curation import AnnotatorGrade, Curated, CurationSettings, SetAside
from models.learning.judging import Judgment, Lessons, Progress, Vectors, insider, outsider
from models.learning.polling import Poll
from models.learning.repetitions import Parted

LEAST_WEIGHT = 0.05  # of a text that is learned from
DOUBTED = 0.1  # what only one annotator says, and is no more certain than this, is not learned
SHOWN = 5  # opinions in a sentence
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Bench(NamedTuple):
    """The poll, and vectors to judge its texts by."""

    poll: Poll
    known: Vectors  # of the training texts
    known_targets: Ints
    asked: Vectors  # of the poll's texts


def bench_of(asked: Poll, train: Sequence[Example], seen: Vectors) -> Bench:
    """From the vectors of the training texts and then the poll's, [n, width]."""
    column = {label: place for place, label in enumerate(asked.labels)}
    targets = np.array([column[example.label] for example in train], np.int64)
    return Bench(asked, seen[: len(train)], targets, seen[len(train) :])


class _Hearing(NamedTuple):
    """Some of the votes, with the texts that they are on numbered anew."""

    votes: Votes
    live: Ints  # the poll's number of each text
    lessons: Lessons

    def with_judge(self, judgment: Judgment, voters: int) -> tuple[Agreed, Bools]:
        """What the texts are, the judge being one more voter; and on which [texts] it spoke.

        On a text with a label that it does not know a judge could only disagree, so there it says nothing.
        """
        votes = self.votes
        spoke = judgment.probabilities.sum(axis=1) > 0
        spoke[votes.text[~judgment.knows[votes.text, votes.label]]] = False
        all_votes = Votes(
            np.concatenate([votes.text, np.flatnonzero(spoke)]),
            np.concatenate([votes.voter, np.full(spoke.sum(), voters)]),
            np.concatenate([votes.label, judgment.probabilities.argmax(axis=1)[spoke]]),
            votes.labels,
        )
        return agreed(all_votes, len(self.live), voters + 1), spoke


def _hearing(bench: Bench, heard: Bools, worth: Mapping[str, float]) -> _Hearing:
    """The votes `heard`; a text's provisional label is the one that most speaks for, by the worth of who says it."""
    votes = bench.poll.votes.select(heard)
    live, text = np.unique(votes.text, return_inverse=True)
    weights = np.array([worth.get(name, 1.0) for name in bench.poll.names])
    support = np.zeros((len(live), votes.labels))
    np.add.at(support, (text, votes.label), weights[votes.voter])
    lessons = Lessons(bench.known, bench.known_targets, bench.asked[live], support.argmax(axis=1), votes.labels)
    return _Hearing(Votes(text, votes.voter, votes.label, votes.labels), live, lessons)


def graded_annotators(
    bench: Bench, hurried: Collection[int], settings: CurationSettings, progress: Progress | None
) -> Mapping[str, AnnotatorGrade]:
    """Everybody's grade, by each other's opinions and by judges that learned from the others.

    `hurried` are votes that are part of a burst: nobody is graded by them.
    """
    names = bench.poll.names
    hearing = _hearing(bench, ~_among(hurried, bench.poll), {})
    votes = hearing.votes
    people = np.split(votes.voter, np.flatnonzero(np.diff(votes.text)) + 1)  # votes are in the order of texts
    judgment = outsider(hearing.lessons, [its.tolist() for its in people if len(its)], progress)
    result, spoke = hearing.with_judge(judgment, len(names))
    comparable = spoke[votes.text] | (np.bincount(votes.text)[votes.text] > 1)
    return grades(names, bench.poll.labels, votes, result, comparable, settings)


def _among(rows: Collection[int], asked: Poll) -> Bools:
    return np.isin(np.arange(len(asked.opinions)), list(rows))


def agreed_texts(
    bench: Bench,
    hurried: Mapping[int, str],
    graded: Mapping[str, AnnotatorGrade],
    settings: CurationSettings,
    progress: Progress | None,
) -> Parted:
    """Each text with the label that those who are heard agree on, or waiting because there is none to rely on."""
    asked = bench.poll
    barred = np.array([graded[name].quarantined is not None for name in asked.names])
    heard = ~_among(hurried, asked) & ~barred[asked.votes.voter]
    hearing = _hearing(bench, heard, {name: grade.weight for name, grade in graded.items()})
    judgment, suspects = insider(hearing.lessons, settings.most_lost, settings.seed, progress)
    result, _ = hearing.with_judge(judgment, len(asked.names))
    doubted = {one.row: one for one in suspects}
    kept: list[Curated] = []
    aside = _unheard(asked, heard, hurried, graded)
    for number in range(len(hearing.live)):
        verdict = _verdict(asked, hearing, number, result, doubted.get(number), settings)
        if isinstance(verdict, Curated):
            kept.append(verdict)
        else:
            aside.append(verdict)
    return kept, aside


def _verdict(
    asked: Poll,
    hearing: _Hearing,
    number: int,
    result: Agreed,
    suspect: Suspect | None,
    settings: CurationSettings,
) -> Curated | SetAside:
    votes = hearing.votes
    mine = np.flatnonzero(votes.text == number)
    certainties = result.probabilities[number]
    said = np.unique(votes.label[mine])
    best = int(said[certainties[said].argmax()])
    text, label, certainty = asked.texts[hearing.live[number]], asked.labels[best], float(certainties[best])
    key = text.keys[0]
    if len(said) > 1 and certainty < settings.least_certainty:
        shown = ", ".join(
            f"{asked.names[votes.voter[v]]!r} says {asked.labels[votes.label[v]]!r}" for v in mine[:SHOWN]
        )
        return SetAside(key, "conflict", f"{shown}: the likeliest has {certainty:.0%}")
    people = tuple(sorted(asked.names[voter] for voter in votes.voter[mine[votes.label[mine] == best]]))
    if len(people) == 1 and (certainty < DOUBTED or (suspect is not None and suspect.given == best)):
        other = asked.labels[int(certainties.argmax()) if suspect is None else suspect.suggested]
        shown = f"{people[0]!r} says {label!r}, the other texts rather {other!r}; {certainty:.0%} certain"
        return SetAside(key, "label-error", shown)
    first = text.first
    weight = max(LEAST_WEIGHT, min(1.0, certainty))
    return Curated(key, first.text, label, weight, first.event_time_s, first.source, people, first.conversation)


def _unheard(
    asked: Poll, heard: Bools, hurried: Mapping[int, str], graded: Mapping[str, AnnotatorGrade]
) -> list[SetAside]:
    """The texts on which nobody is heard, and why the one who labelled it last is not."""
    why: dict[int, SetAside] = {}
    for vote, text in enumerate(asked.votes.text):
        key, name = asked.texts[text].keys[0], asked.opinions[vote].annotator
        if vote in hurried:
            why[text] = SetAside(key, "burst", hurried[vote])
        else:
            why[text] = SetAside(key, "annotator", f"{name!r} {graded[name].quarantined}")
    for text in asked.votes.text[heard]:
        why.pop(text, None)
    return list(why.values())
