from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import Busy
from models.learning.opinions import text_key
from models.learning.store import DatasetStore
from streams.embedded import embedded_broker
from streams.exits import BrokerUnavailable
from streams.learning.collector import Collected, Collector
from tests.streams.commands import Run, runner
from tests.streams.learning.world import World, settings_for, told, written
from tests.streams.wire import committed, free_port

NOW_S = 1_795_500_000.0
WAIT_S = 600.0


class Desk:
    """A world, and collectors that take in what was sent to it, at a time that the test sets."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder, self.now_s = world, folder, NOW_S
        self.store = DatasetStore("risk", folder)

    def collect(self) -> Collected:
        with Collector(self.world.settings, self.folder, lambda: self.now_s) as collector:
            return collector.collect()

    def labels(self) -> dict[tuple[str, str], str]:
        return {(one.text, one.annotator): one.label for one in self.store.opinions()}


@pytest.fixture
def desk(tmp_path: Path, unique: Callable[[str], str]) -> Any:
    with embedded_broker({}) as broker:
        world = World(settings_for(broker.bootstrap, tmp_path, unique("desk"), wait_s=WAIT_S))
        world.touch()
        yield Desk(world, tmp_path / "home" / "learning")


def test_feedback_of_every_kind_is_taken_in_once(desk: Desk) -> None:
    first, second, third = desk.world.events(3, partition=1)
    at = desk.world.feedback(
        told(prediction_id=first),
        told("legitimate", prediction_id=first, hour=2),
        told(event_id="e1-1"),
        told("legitimate", "bob", event_id="e1-1"),
        told(prediction_id=f"{third}/review"),
        told(None, prediction_id=third, hour=3),
        told(text="An own text"),
        told(text="An own text"),
        told("frod", prediction_id=second),
        told(prediction_id=first.replace("/0/risk", "/77/risk")),
        b"no feedback",
    )
    done = desk.collect()
    assert desk.labels() == {
        ("text 1-0", "ann"): "legitimate",
        ("text 1-1", "ann"): "fraud",
        ("text 1-1", "bob"): "legitimate",
        ("An own text", "ann"): "fraud",
    }
    ends = Counter(
        labelled=4, corrected=1, conflicting=1, withdrawn=1, duplicate=1, unknown_label=1,
    )  # fmt: skip
    assert (done.ends["risk"], done.refused, done.waiting) == (ends, Counter(NotJson=1), 1)
    assert done.records == len(at) == ends.total() + done.refused.total() + done.waiting
    names = desk.world.settings.topics
    assert desk.world.letters() == {
        f"{names.feedback}/0/{at[8]}/dead-letter": "UnknownLabel",
        f"{names.feedback}/0/{at[10]}/dead-letter": "NotJson",
    }
    opinion = next(one for one in desk.store.opinions() if one.text == "text 1-1" and one.annotator == "ann")
    assert (opinion.predicted, opinion.score, opinion.release, opinion.source) == (
        "legitimate", 0.7, "risk-1", "transactions",
    )  # fmt: skip
    assert opinion.key == second.removesuffix("/risk")
    assert text_key("an own text") in {one.key for one in desk.store.opinions()}
    group = f"{desk.world.settings.broker.group}-feedback"
    assert committed(desk.world.settings.broker.bootstrap, group, names.feedback)[0] == len(at)
    again = desk.collect()
    assert (again.records, again.versions, desk.store.numbers()) == (0, {}, [1])


def test_feedback_on_an_event_that_nobody_knows_waits_for_it(desk: Desk) -> None:
    (early, never) = desk.world.feedback(told(event_id="e0-0"), told(event_id="e0-9"))
    assert desk.collect().waiting == 2
    desk.now_s += WAIT_S - 1
    assert (desk.collect().waiting, desk.store.numbers()) == (2, [1])  # nothing new: no version
    desk.world.events(1)
    done = desk.collect()
    assert (done.waiting, done.ends["risk"], desk.labels()) == (1, Counter(labelled=1), {("text 0-0", "ann"): "fraud"})
    desk.now_s += 1
    done = desk.collect()
    assert (done.waiting, done.ends["risk"]) == (0, Counter(unknown_event=1))
    letter = f"{desk.world.settings.topics.feedback}/0/{never}/dead-letter"
    assert desk.world.letters() == {letter: "UnknownEvent"}
    head = desk.store.head()
    assert head is not None and head.ends == {"labelled": 1, "unknown_event": 1} and early == 0


def test_what_is_in_a_version_is_not_taken_in_again_and_what_was_lost_with_one_is(desk: Desk) -> None:
    ids = desk.world.events(4)
    desk.world.feedback(*(told(prediction_id=one) for one in ids[:2]), b"no feedback")
    desk.collect()
    desk.world.feedback(told(prediction_id=ids[2]), told("legitimate", prediction_id=ids[0], hour=2))
    desk.collect()
    expected = desk.labels()
    (desk.folder / "collected.json").unlink()
    done = desk.collect()
    assert (done.records, done.versions, desk.labels()) == (5, {}, expected)
    shutil.rmtree(desk.store.path(2))
    assert desk.labels() != expected
    done = desk.collect()
    assert (desk.labels(), done.ends["risk"], done.refused) == (expected, Counter(labelled=1, corrected=1), Counter())


def test_two_collectors_do_not_work_at_once(desk: Desk) -> None:
    with Collector(desk.world.settings, desk.folder), pytest.raises(Busy, match="a collector of feedback is at work"):
        desk.collect()


def test_old_versions_make_room_for_new_ones(desk: Desk) -> None:
    keep = desk.world.settings.feedback.model_copy(update={"keep_versions": 2})
    desk.world.settings = desk.world.settings.model_copy(update={"feedback": keep})
    for number in range(4):
        desk.world.feedback(told(text=f"text {number}"))
        desk.collect()
    assert desk.store.numbers() == [3, 4]
    assert len(desk.labels()) == 4


def test_the_commands(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run: Run = runner(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("STREAMGAUGE_HOME", str(desk.folder.parent))
    config = written(desk.world.settings, tmp_path)
    desk.world.feedback(told(text="one"), told("legitimate", "bob", text="one"), b"no feedback")
    before = json.loads(run("feedback", "status", "--json", "--config", config).out)
    assert before == {"tasks": {"risk": None}, "not_understood": {}, "lag": 3}
    done = run("feedback", "collect", "--once", "--json", "--config", config)
    assert done.code == 0, done.err
    assert json.loads(done.out) == {
        "records": 3, "lost": 0, "ends": {"risk": {"labelled": 1, "conflicting": 1}}, "not_understood": {"NotJson": 1},
        "versions": {"risk": 1}, "waiting": 0,
    }  # fmt: skip
    shown = run("feedback", "status", "--config", config)
    assert "2 of 2 annotators; 1 texts disputed" in shown.out and "not collected yet: 0 records" in shown.out
    after = json.loads(run("feedback", "status", "risk", "--json", "--config", config).out)
    assert (after["tasks"]["risk"]["opinions"], after["not_understood"], after["lag"]) == (2, {"NotJson": 1}, 0)
    collected = run("feedback", "collect", "--once", "--config", config)
    assert collected.out.strip() == "0 records"


def test_without_a_broker_status_still_tells_what_was_collected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run: Run = runner(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    away = f"127.0.0.1:{free_port()}"
    done = run("feedback", "status", "--json", BROKER__BOOTSTRAP=away)
    assert (done.code, json.loads(done.out)["lag"]) == (0, None)
    with pytest.raises(BrokerUnavailable):
        Collector(settings_for(away, tmp_path, "away"), tmp_path).__enter__()
