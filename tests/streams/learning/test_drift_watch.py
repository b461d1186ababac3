"""The watch over drift, on a broker: what it reads, what it raises, and what it asks people about."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from confluent_kafka import Producer

from models.errors import ReleaseNotFound
from models.learning.alarms import PATIENCE
from models.learning.opinions import Opinion, Position, Statement, fold
from models.learning.selection import DAY_S
from models.learning.store import Contents, DatasetStore, ReadUpTo
from models.releases import MANIFEST, file_sha256, read_manifest
from streams import metrics
from streams.embedded import embedded_broker
from streams.events import DriftAlarm
from streams.learning.alarm_call import ask_for_labels
from streams.learning.drift_watch import DriftWatch, loaded_reference
from streams.learning.releases_topic import write
from streams.learning.watched import MEANING, Reference, Seen, Watched
from streams.serving import in_share
from streams.settings import Settings
from tests.models.learning.rows import label
from tests.streams.commands import runner
from tests.streams.fakes import LABELS, FakeModel
from tests.streams.learning.profiled import profile_of_texts, texts_of
from tests.streams.learning.promoted import release
from tests.streams.learning.world import settings_for, written
from tests.streams.wire import read_all
from tests.whereabouts import SURE

NOON_S = 20_781 * DAY_S + DAY_S / 2
LOOK_S = 60.0
A_DAY = 100


def vectors(texts: Sequence[str]) -> np.ndarray:
    """What the texts are about: their letters."""
    return np.array([[1 + text.count(letter) for letter in "abcdlmox"] for text in texts], np.float32)


def windows(texts: Sequence[str]) -> list[list[list[int]]]:
    return [one.windows for one in FakeModel().encode(texts)]


def reference(task: str = "risk", release: str = "risk-1") -> Reference:
    texts = texts_of(600)
    return Reference(release, LABELS, replace(profile_of_texts(texts), vectors=vectors(texts[:150])), windows, vectors)


class Stream:
    """A topic of events and their predictions by a fake model, at a time that the test sets."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.now_s, self.count = settings, NOON_S, 0
        self._producer = Producer({"bootstrap.servers": settings.broker.bootstrap, **SURE})
        for name in self.topics:
            self._producer.list_topics(name, 10)

    @property
    def topics(self) -> list[str]:
        names = self.settings.topics
        return [
            self.settings.sources["transactions"].topic,
            names.predictions,
            names.review,
            names.drift,
            names.releases,
        ]

    def send(self, topic: str, value: object, key: str = "k") -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self._producer.produce(topic, data, key.encode(), 0, timestamp=int(self.now_s * 1000))

    def scored(self, texts: Sequence[str], release: str = "risk-1", score: float = 0.9) -> None:
        """Events, and what the release says of them."""
        events, predictions = self.topics[:2]
        for text in texts:
            rest = (1 - score) / 2
            scores = {label: score if text.startswith(label) else rest for label in LABELS}
            label = max(scores, key=lambda one: scores[one])
            self.send(events, {"id": f"e{self.count}", "text": text})
            self.send(predictions, {
                "id": f"{events}/0/{self.count}/risk", "event_id": f"e{self.count}", "task": "risk", "label": label,
                "release": release, "score": scores[label], "scores": scores, "out_of_scope": False,
                "source": {"name": "transactions", "topic": events, "partition": 0, "offset": self.count},
            }, f"k{self.count}")  # fmt: skip
            self.count += 1
        assert self._producer.flush(30) == 0

    def watch(self, load: Callable[[str, str], Reference] = reference, silent: bool = False) -> DriftWatch:
        return DriftWatch(self.settings, load, lambda: self.now_s, silent)

    def read(self, name: str) -> list[dict[str, Any]]:
        topic = getattr(self.settings.topics, name)
        return [json.loads(one.value() or b"") for one in read_all(self.settings.broker.bootstrap, topic)]


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    with embedded_broker({}) as broker:
        yield broker.bootstrap


@pytest.fixture
def stream(
    bootstrap: str, tmp_path: Path, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stream]:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path / "home"))
    settings = settings_for(bootstrap, tmp_path, unique("drift"))
    drift = settings.drift.model_copy(update={"labels_a_day": A_DAY, "labels_to_retrain": 40})
    yield Stream(settings.model_copy(update={"drift": drift}))


def looks(watch: DriftWatch, stream: Stream, count: int, texts: Sequence[str] = ()) -> None:
    """So many looks a minute apart, such texts before each."""
    for _ in range(count):
        if texts:
            stream.scored(texts)
        watch.look()
        stream.now_s += LOOK_S


def test_the_same_kind_of_events_raises_nothing(stream: Stream) -> None:
    watch = stream.watch()
    stream.scored(texts_of(300))
    (standing,) = watch.look()
    assert standing.moved == {}
    assert set(standing.shifts) == {"label", "confidence", "length", "unknown", MEANING}
    assert standing.expected.n == 300
    looks(watch, stream, PATIENCE + 1)
    assert stream.read("drift") == []


def test_a_candidate_that_was_promoted_is_found_where_the_releases_topic_says(
    stream: Stream, tiny_releases: dict[str, Path]
) -> None:
    there, settings = tiny_releases["risk"], stream.settings
    name = read_manifest(there).release
    with pytest.raises(ReleaseNotFound):
        loaded_reference(settings, "risk", name)
    promoted = release(name)
    promoted |= {"reference": str(there), "sha256": file_sha256(there / MANIFEST)}
    write(settings, {("risk", "champion"): promoted})
    assert loaded_reference(settings, "risk", name).release == name
    with pytest.raises(ReleaseNotFound):
        loaded_reference(settings, "risk", "risk-of-yesterday")


def test_a_change_opens_an_alarm_once_and_its_end_resolves_it(stream: Stream) -> None:
    watch = stream.watch()
    looks(watch, stream, PATIENCE + 2, texts_of(60, "odd"))
    (alarm,) = stream.read("drift")
    assert (alarm["task"], alarm["release"], alarm["state"], alarm["wants"]) == ("risk", "risk-1", "open", "labels")
    assert {"label", MEANING} <= {one["quantity"] for one in alarm["moved"]}
    assert metrics.REGISTRY.get_sample_value("streamgauge_drift_alarm", {"task": "risk"}) == 1
    stream.now_s += stream.settings.drift.window_s
    looks(watch, stream, PATIENCE + 1, texts_of(60))
    _, resolved = stream.read("drift")
    assert (resolved["id"], resolved["state"]) == (alarm["id"], "resolved")
    assert metrics.REGISTRY.get_sample_value("streamgauge_drift_alarm", {"task": "risk"}) == 0


def test_texts_about_something_else_are_seen_where_labels_and_scores_are_the_same(stream: Stream) -> None:
    watch = stream.watch()
    stream.scored([text.replace("x", "c") for text in texts_of(300)])
    (standing,) = watch.look()
    assert MEANING in standing.moved
    assert {"label", "confidence", "length"}.isdisjoint(standing.moved)


def test_a_watch_that_begins_anew_knows_its_alarm_and_what_it_asked(stream: Stream) -> None:
    looks(stream.watch(), stream, PATIENCE, texts_of(60, "odd"))
    asked = stream.read("review")
    assert len(stream.read("drift")) == 1
    again = stream.watch()
    looks(again, stream, PATIENCE + 2, texts_of(60, "odd"))
    assert len(stream.read("drift")) == 1
    requests = [one["id"] for one in stream.read("review")]
    assert len(requests) == len(set(requests)) >= len(asked)
    assert len(requests) <= A_DAY


def test_labels_are_asked_for_by_the_hour_and_at_once_when_an_alarm_opens(stream: Stream) -> None:
    watch = stream.watch()
    stream.scored(texts_of(300))
    watch.look()
    asked = stream.read("review")
    assert len(asked) == A_DAY / 2  # it is noon
    why = Counter(one["reason"] for one in asked)
    assert set(why) == {"informative", "random"} and 4 <= why["random"] <= 6
    for one in asked:
        assert one["id"].endswith("/risk/review/learning")
        assert one["text"].startswith(one["label"])
    looks(watch, stream, PATIENCE, texts_of(250, "odd"))
    assert len(stream.read("review")) == pytest.approx(A_DAY * 3 / 4, abs=2)  # half of what the day had left


def test_nothing_is_asked_twice(stream: Stream) -> None:
    watch = stream.watch()
    stream.scored(texts_of(30))
    looks(watch, stream, 5)
    stream.now_s += DAY_S / 4
    looks(watch, stream, 5)
    requests = [one["id"] for one in stream.read("review")]
    assert len(requests) == len(set(requests)) == 30


def test_what_is_random_is_drawn_from_all_that_came_and_not_from_what_is_unsure() -> None:
    """A tenth of the texts is unsure; of those kept as candidates, half are."""
    watched, unsure, drawn = Watched("risk", reference(), 3600.0), 0, 0
    for turn in range(60):
        seen = []
        for row in range(1500):
            score = 0.4 if row % 10 == 0 else 0.9
            source = {"topic": "t", "partition": turn, "offset": row}
            scores = {label: score if label == LABELS[0] else (1 - score) / 2 for label in LABELS}
            seen.append(Seen({"label": LABELS[0], "score": score, "scores": scores, "source": source}, NOON_S))
        watched.saw(seen)
        texts = {one.at: f"{LABELS[0]} {'x' * (one.at.offset % 20)}" for one in watched.candidates}
        for asked in watched.ask(texts, 50, turn):
            if asked.pick.why == "random":
                drawn += 1
                unsure += asked.seen.prediction["score"] < 0.5
    assert drawn == 300
    assert abs(unsure - 30) < 4 * (300 * 0.1 * 0.9) ** 0.5


def test_while_a_challenger_is_judged_half_of_the_labels_are_random_ones_that_both_scored(stream: Stream) -> None:
    rival = release("rival", role="challenger", mode="canary") | {"share": 0.3}
    write(stream.settings, {("risk", "challenger"): rival})
    watch = stream.watch()
    stream.scored(texts_of(300))
    stream.scored(texts_of(20), release="rival")
    (standing,) = watch.look()
    assert standing.release == "risk-1", "a canary is no new champion"
    asked = stream.read("review")
    assert Counter(one["reason"] for one in asked) == {"informative": A_DAY / 4, "random": A_DAY / 4}
    drawn = [one["source"]["offset"] for one in asked if one["reason"] == "random"]
    assert all(in_share(f"k{offset}", "rival", 0.3) for offset in drawn)


def test_without_a_budget_nobody_is_asked(stream: Stream) -> None:
    stream.settings = stream.settings.model_copy(
        update={"drift": stream.settings.drift.model_copy(update={"labels_a_day": 0})}
    )
    looks(stream.watch(), stream, PATIENCE, texts_of(60, "odd"))
    assert stream.read("review") == []


def test_a_new_release_is_compared_with_its_own_profile(stream: Stream) -> None:
    watch = stream.watch(lambda task, release: reference(task, release))
    stream.scored(texts_of(200, "odd"))
    watch.look()
    stream.scored(texts_of(200), release="risk-2")
    (standing,) = watch.look()
    assert (standing.release, standing.expected.n, standing.moved) == ("risk-2", 200, {})


def test_a_release_that_is_not_here_is_not_compared(stream: Stream) -> None:
    def none(task: str, release: str) -> Reference:
        raise ReleaseNotFound(f"no release {release}")

    stream.scored(texts_of(50))
    assert stream.watch(none).look() == []


def test_what_is_no_prediction_is_passed_over(stream: Stream) -> None:
    for value in (b"\xff", b"[]", b"{}", {"task": "risk"}, {"scores": {"calm": 1}, "source": {}}):
        stream.send(stream.settings.topics.predictions, value)
    stream.scored(texts_of(50))
    (standing,) = stream.watch().look()
    assert standing.expected.n == 50


def test_a_silent_watch_sends_nothing(stream: Stream) -> None:
    stream.scored(texts_of(200, "odd"))
    watch = stream.watch(silent=True)
    looks(watch, stream, PATIENCE + 1)
    assert stream.read("drift") == stream.read("review") == []


def test_labels_that_disagree_open_an_alarm_that_wants_training(stream: Stream) -> None:
    said = [
        Statement(
            Opinion("risk", f"t/0/{turn}", "text", "bad", "ann", NOON_S, NOON_S, "transactions",
                    predicted="odd" if turn % 2 else "bad", score=0.9, release="risk-1"),
            Position(0, turn),
        )
        for turn in range(60)
    ]  # fmt: skip
    ledger = fold({}, said, LABELS, 100).ledger
    read = ReadUpTo(topic="feedback", topic_id="", offsets={0: 60})
    DatasetStore("risk").add(Contents(ledger, ()), {"labelled": 60}, read, datetime.fromtimestamp(NOON_S, UTC))
    looks(stream.watch(), stream, PATIENCE, texts_of(60))
    (alarm,) = stream.read("drift")
    assert (alarm["wants"], alarm["labelled"], alarm["labelled_accuracy"]) == ("retrain", 60, 0.5)
    assert [one["quantity"] for one in alarm["moved"]] == ["calibration"]
    assert metrics.REGISTRY.get_sample_value(
        "streamgauge_overconfidence_ratio", {"task": "risk", "release": "risk-1"}
    ) == pytest.approx(0.4)


def test_a_retraining_that_lacks_labels_has_them_asked_for_at_once(stream: Stream) -> None:
    said = [label("odd", 1.0, "ann", f"t/0/{turn}", turn) for turn in range(60)]
    read = ReadUpTo(topic="feedback", topic_id="", offsets={0: 60})
    contents = Contents(fold({}, said, LABELS, 100).ledger)
    DatasetStore("risk").add(contents, {}, read, datetime.fromtimestamp(NOON_S, UTC))
    watch = stream.watch()
    looks(watch, stream, PATIENCE, texts_of(60, "odd"))
    (alarm,) = stream.read("drift")
    assert alarm["wants"] == "retrain"
    before = len(stream.read("review"))
    stream.send(stream.settings.topics.drift, alarm | {"wants": "labels", "id": "risk/drift/1"})
    looks(watch, stream, 1, texts_of(60, "odd"))
    assert len(stream.read("review")) <= before + 1, "that was another alarm"
    ask_for_labels(stream.settings, cast(DriftAlarm, alarm), "it takes 30", stream.now_s)
    looks(watch, stream, 1, texts_of(60, "odd"))
    assert len(stream.read("review")) == pytest.approx(before + (A_DAY - before) / 2, abs=2)
    looks(watch, stream, 2, texts_of(60, "odd"))
    assert len(stream.read("review")) == pytest.approx(before + (A_DAY - before) / 2, abs=3), "once"


def test_the_commands_look_and_say_how_things_stand(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config = runner(monkeypatch, capsys, tmp_path), written(stream.settings, tmp_path)
    stream.scored(texts_of(20), release="risk-none")
    done = run("drift", "status", "--json", "--config", config)
    assert (done.code, json.loads(done.out.splitlines()[-1])) == (0, {"moved": False, "tasks": []})
    assert run("drift", "watch", "--once", "--config", config).code == 0
    assert stream.read("review") == stream.read("drift") == []
