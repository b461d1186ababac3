"""A challenger judged by labels: pairs from the shadow topic, labels from the data set, and what is done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer

from models.errors import ReleaseNotFound
from models.learning.approval import runs_folder
from models.learning.opinions import fold, opinions_of
from models.learning.run_files import read_live
from models.learning.sequential import DuelSettings
from models.learning.store import Contents, DatasetStore, ReadUpTo
from models.learning.verdict import write_verdict
from models.lineage import Parent
from models.report import FILE
from streams.embedded import EmbeddedBroker
from streams.events import ShadowScore
from streams.learning.judge import drawn, duels, judge
from streams.learning.promoting import promote
from streams.learning.releases_topic import read_standing, write
from streams.learning.rollout_commands import lines_of
from streams.settings import Settings
from tests.models.learning.rows import label
from tests.models.learning.verdicts import made_verdict
from tests.streams.learning.promoted import release

LABELS = ("ham", "spam")
DUEL = DuelSettings(fewest_labels=10, most_labels=60)


def pair(offset: int, champion: str, challenger: str, rival: str = "rival") -> ShadowScore:
    return {
        "id": f"chat/0/{offset}/risk/shadow/{rival}", "event_id": f"e{offset}", "task": "risk", "mode": "shadow",
        "event_time": "2026-03-01T12:00:00.000Z", "scored_at": "2026-03-01T12:00:01.000Z",
        "champion": {"release": "old", "label": champion, "score": 0.9},
        "challenger": {"release": rival, "label": challenger, "score": 0.8},
        "source": {"name": "chat", "topic": "chat", "partition": 0, "offset": offset},
    }  # fmt: skip


class Court:
    """A broker with a champion, a challenger and their pairs, and a data set with labels: all `ham`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._producer = Producer({"bootstrap.servers": settings.broker.bootstrap})
        names = settings.topics
        for name in (names.releases, names.shadow, names.review, names.predictions, names.dead_letters):
            self._producer.list_topics(name, 10)  # makes it
        rival = release("rival", role="challenger", mode="shadow")
        write(settings, {("risk", "champion"): release("old"), ("risk", "challenger"): rival})

    def scored(self, *pairs: ShadowScore) -> None:
        for one in pairs:
            self._producer.produce(self.settings.topics.shadow, orjson.dumps(one))
        self._producer.produce(self.settings.topics.shadow, b"no pair")
        assert self._producer.flush(20) == 0

    def asked(self, why: str, keys: range, task: str = "risk") -> None:
        """People were asked for these labels, by the watch over drift or by a worker."""
        for n in keys:
            source = {"name": "chat", "topic": "chat", "partition": 0, "offset": n}
            request = {"id": f"chat/0/{n}/{task}/review", "task": task, "reason": why, "source": source}
            self._producer.produce(self.settings.topics.review, orjson.dumps(request))
        assert self._producer.flush(20) == 0

    def labelled(self, count: int, at_random: bool = True) -> None:
        said = [label("ham", float(n), "ann", f"chat/0/{n}", n, at_random=at_random) for n in range(count)]
        contents = Contents(fold({}, said, LABELS, 100).ledger)
        read = ReadUpTo(topic="feedback", topic_id="abc", offsets={0: count})
        DatasetStore("risk").add(contents, {}, read, datetime(2026, 3, 1, tzinfo=UTC))

    def roles(self) -> dict[str, str]:
        return {role: one["release"] for (_, role), one in read_standing(self.settings).items()}


@pytest.fixture
def court(
    embedded: EmbeddedBroker, settings_at: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Court:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    return Court(settings_at(embedded.bootstrap))


def test_a_better_challenger_is_promoted_by_its_labels(court: Court) -> None:
    court.scored(*(pair(n, "spam" if n % 2 else "ham", "ham") for n in range(40)))
    court.labelled(40)
    found = judge(court.settings, "risk", DUEL)
    assert (found.standing.action, found.done, found.champion) == ("promote", False, "old")
    assert court.roles() == {"champion": "old", "challenger": "rival"}, "nothing is done unless asked for"
    assert judge(court.settings, "risk", DUEL, act=True).done
    assert court.roles() == {"champion": "rival", "challenger": "old"}, "the champion before is compared with it"
    record = read_standing(court.settings)["risk", "champion"]
    assert "sequential test, better: of" in record["why"]
    assert record["promoted_by"] == "streamgauge releases judge"


@pytest.mark.parametrize(("wrong_every", "pairs", "action"), [(2, 40, "roll back"), (1000, 80, "give up")])
def test_one_that_is_worse_or_no_better_is_withdrawn(court: Court, wrong_every: int, pairs: int, action: str) -> None:
    court.scored(*(pair(n, "ham", "ham" if n % wrong_every else "spam") for n in range(1, pairs + 1)))
    court.labelled(pairs + 1)
    found = judge(court.settings, "risk", DUEL, act=True)
    assert (found.standing.action, found.done) == (action, True)
    assert court.roles() == {"champion": "old"}


def test_few_labels_and_pairs_of_others_decide_nothing(court: Court) -> None:
    court.scored(*(pair(n, "spam", "ham") for n in range(9)), *(pair(n, "spam", "ham", "other") for n in range(9, 40)))
    court.labelled(40)
    found = judge(court.settings, "risk", DUEL, act=True)
    assert (found.standing.action, found.standing.tally.gained, found.done) == ("go on", 9, False)
    assert court.roles() == {"champion": "old", "challenger": "rival"}
    with pytest.raises(ReleaseNotFound, match="has no challenger"):
        judge(court.settings, "tone", DUEL)


def test_labels_that_were_not_drawn_at_random_do_not_count_and_are_told(court: Court) -> None:
    court.scored(*(pair(n, "spam", "ham") for n in range(40)))
    court.labelled(40, at_random=False)
    found = judge(court.settings, "risk", DUEL, act=True)
    assert (found.standing.action, found.standing.tally.n, found.not_counted) == ("go on", 0, 40)
    assert any("no label of a text drawn at random yet" in line for line in lines_of(found))
    court.asked("random", range(20))
    court.asked("random", range(20, 40), task="tone")
    court.asked("low-confidence", range(20, 30))
    found = judge(court.settings, "risk", DUEL)
    assert (found.standing.action, found.standing.tally.n, found.not_counted) == ("promote", 10, 20)


def test_a_label_asked_for_because_of_doubt_does_not_count_whatever_its_feedback_says(court: Court) -> None:
    court.scored(*(pair(n, "spam", "ham") for n in range(40)))
    court.labelled(40, at_random=True)
    court.asked("informative", range(35))
    found = judge(court.settings, "risk", DUEL)
    assert (found.standing.action, found.standing.tally.n, found.not_counted) == ("go on", 5, 35)


def test_the_champion_before_serves_again_when_labels_show_that_it_is_better(court: Court) -> None:
    promote(court.settings, "risk")
    assert court.roles() == {"champion": "rival", "challenger": "old"}
    back = [pair(n, "spam" if n % 2 else "ham", "ham", "old") for n in range(40)]
    court.scored(
        *(one | {"champion": {"release": "rival", "label": one["champion"]["label"], "score": 0.9}} for one in back)
    )
    court.labelled(40)
    found = judge(court.settings, "risk", DUEL, act=True)
    assert (found.standing.action, found.former, found.done) == ("promote", True, True)
    assert court.roles() == {"champion": "old"}
    record = read_standing(court.settings)["risk", "champion"]
    assert "watched_until" not in record, "what was taken back is not watched over: nothing goes back and forth"
    assert record["why"].startswith("old again: sequential test, better: of")


def test_the_run_that_made_it_tells_how_it_fares(court: Court) -> None:
    """On its page and in `retrain show`, for whoever is to decide on it."""
    made = made_verdict()
    made = made.model_copy(update={"candidate": Parent(release="rival", sha256=release("rival")["sha256"])})
    for run, verdict in (("run-1", made), ("run-2", made_verdict(run="run-2"))):
        write_verdict(runs_folder("risk") / run, verdict, None)
    court.scored(*(pair(n, "spam" if n % 3 else "ham", "ham") for n in range(9)))
    court.labelled(9)
    found = judge(court.settings, "risk", DUEL)
    folder = runs_folder("risk") / "run-1"
    assert read_live(folder) == found.standing
    assert "of 9 labelled texts 6 gained and 0 lost" in (folder / FILE).read_text(encoding="utf-8")
    assert (found.standing.tally.champion_accuracy, found.standing.tally.challenger_accuracy) == (3 / 9, 1)
    assert read_live(runs_folder("risk") / "run-2") is None


def test_duels_come_in_the_order_of_their_labels() -> None:
    pairs = {f"chat/0/{n}": ("ham", "spam") for n in range(3)}
    said = [label("spam", 9.0 - n, "ann", f"chat/0/{n}", n, at_random=True) for n in range(5)]
    found = duels(pairs, drawn(pairs, opinions_of(fold({}, said, LABELS, 100).ledger), {})[0])
    assert [duel.text for duel in found] == [f"text of chat/0/{n}" for n in (2, 1, 0)]
