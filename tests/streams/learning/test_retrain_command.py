"""What the job sees before it begins: whose successor, and whether enough was labelled since the last run."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from models.errors import IntegrityError
from models.learning.opinions import Opinion, Position, Statement
from models.learning.runs import Outcome, Plan, Run
from models.learning.store import Contents, DatasetStore, ReadUpTo
from models.releases import as_parent, find_release, home
from streams.cli import app
from streams.events import Release
from streams.learning.alarm_call import call
from streams.learning.releases_topic import write
from streams.learning.retrain_command import champion_of, labelled_since, say, turn
from streams.settings import Settings
from tests.streams.handmade import make_release
from tests.streams.learning.retraining import ignore, job_of, opinion, store
from tests.streams.wire import read_all


def opinions(count: int) -> Contents:
    rows = [Opinion("risk", f"sms/0/{row}", f"text {row}", "scam", "ann", 1e9, 1e9, "sms") for row in range(count)]
    return Contents({(one.key, one.annotator): Statement(one, Position(0, at)) for at, one in enumerate(rows)})


def test_only_what_came_after_the_last_run_to_end_counts(tmp_path: Path) -> None:
    store, runs = DatasetStore("risk", tmp_path), tmp_path / "risk" / "runs"
    assert labelled_since(tmp_path / "risk", "risk") == 0

    def take_in(count: int) -> int:
        read = ReadUpTo(topic="feedback", topic_id="", offsets={0: count})
        return store.add(opinions(count), {}, read, datetime(2026, 3, 1, tzinfo=UTC)).version

    def begin(version: int) -> Run:
        champion = {"release": "risk-1", "sha256": "0" * 64}
        hashes = {"opinions_sha256": "1" * 64, "data_sha256": "2" * 64}
        plan = {"task": "risk", "champion": champion, "version": version, **hashes, "knobs": {}}
        return Run(Plan.model_validate(plan), runs)

    run = begin(take_in(40))
    assert labelled_since(tmp_path / "risk", "risk") == 40
    run.ends(Outcome(end="refused"))
    assert labelled_since(tmp_path / "risk", "risk") == 0
    begin(take_in(55))  # cut off: it made nothing of them yet
    assert labelled_since(tmp_path / "risk", "risk") == 15


def test_the_champion_is_what_was_named_promoted_or_set_or_else_the_newest(settings: Settings, tmp_path: Path) -> None:
    made = make_release(tmp_path / "made", {"intent": ("ask", "tell")})
    newest = home() / "releases" / "intent" / "newest"
    newest.parent.mkdir(parents=True)
    newest.symlink_to(made)
    assert champion_of(settings, "intent", None) == newest == find_release("intent")
    here = str(made)
    chosen = settings.model_copy(update={"models": settings.models.model_copy(update={"releases": {"intent": here}})})
    assert champion_of(chosen, "intent", None) == made
    parent = as_parent(newest)
    record: Release = {
        "task": "intent", "role": "champion", "mode": "serve", "share": 1.0, "reference": str(newest),
        "release": parent.release, "sha256": parent.sha256, "promoted_at": "2026-03-01T12:00:00.000Z",
        "promoted_by": "test", "previous": None,
    }  # fmt: skip
    write(settings, {("intent", "champion"): record})
    assert champion_of(chosen, "intent", None) == newest.resolve()
    assert champion_of(settings, "intent", here) == made
    write(settings, {("intent", "champion"): record | {"sha256": "0" * 64}})
    with pytest.raises(IntegrityError, match="is not the manifest that was promoted"):
        champion_of(settings, "intent", None)


class Drifting:
    """An alarm that wants a successor of the tiny champion, and what people have labelled."""

    def __init__(self, settings: Settings, champion: Path, folder: Path) -> None:
        names = settings.topics
        producer = Producer({"bootstrap.servers": settings.broker.bootstrap})
        sources = [one.topic for one in settings.sources.values()]
        for name in (*sources, names.drift, names.feedback, names.predictions, names.dead_letters, names.releases):
            producer.list_topics(name, 10)
        self.job = job_of(settings, champion)
        self._champion, self._producer = champion, producer
        self._data, self._hold_out = folder / "old.jsonl", folder / "frozen.jsonl"
        for path, examples in ((self._data, self.job.old.old), (self._hold_out, self.job.old.hold_out)):
            rows = [json.dumps({"text": one.text, "label": one.label}) for one in examples]
            path.write_text("\n".join(rows), encoding="utf-8")

    def alarm(self, opened_at_s: int, wants: str = "retrain", state: str = "open") -> None:
        record = {
            "id": f"intent/drift/{opened_at_s}", "task": "intent", "release": "intent-1", "state": state,
            "wants": wants, "opened_at": "2026-03-01T12:00:00.000Z", "at": "2026-03-01T12:00:00.000Z", "moved": [],
            "events": 300, "expected_accuracy": 0.7, "expected_accuracy_at_release": 0.9, "labelled": 0,
            "labelled_accuracy": None, "new_labels": 250,
        }  # fmt: skip
        self._producer.produce(self.job.settings.topics.drift, json.dumps(record).encode(), b"intent", 0)
        assert self._producer.flush(20) == 0

    def turn(self, cooldown_s: float = 3600.0) -> Outcome | None:
        chosen = self.job.settings.retrain.model_copy(update={"cooldown_s": cooldown_s})
        settings = self.job.settings.model_copy(update={"retrain": chosen})
        return turn(settings, self.job.task, str(self._champion), self._data, self._hold_out, ignore, False)

    def said(self) -> list[tuple[str, str]]:
        records = read_all(self.job.settings.broker.bootstrap, self.job.settings.topics.drift)
        return [(one["id"], one["wants"]) for one in (json.loads(record.value() or b"") for record in records)]


@pytest.fixture
def drifting(settings: Settings, tiny_release_of: Callable[[str], Path], tmp_path: Path) -> Drifting:
    return Drifting(settings, tiny_release_of("intent"), tmp_path)


def test_an_alarm_begins_one_run_and_asks_for_labels_where_there_are_too_few(drifting: Drifting) -> None:
    assert drifting.turn() is None, "no alarm, no labels"
    store(drifting.job.folder.parent, [opinion(row) for row in range(6)])
    assert drifting.turn() is None, "too few by themselves"
    for wants, state in (("labels", "open"), ("retrain", "resolved")):
        drifting.alarm(1_000, wants, state)
        assert drifting.turn() is None
    drifting.alarm(2_000)
    outcome = drifting.turn()
    assert outcome is not None and outcome.end == "nothing"
    assert "it takes 30 (retrain.least_new)" in outcome.reasons[0]
    assert outcome.reasons[1] == "intent/drift/2000 now asks for labels"
    assert drifting.said()[-2:] == [("intent/drift/2000", "retrain"), ("intent/drift/2000", "labels")]
    drifting.alarm(2_000)
    assert drifting.turn() is None, "one alarm is one run"
    drifting.alarm(3_000)
    assert drifting.turn() is None, "too soon after the one before"
    outcome = drifting.turn(cooldown_s=0)
    assert outcome is not None and outcome.reasons[0] == "no text was labelled since the last run"
    assert drifting.said()[-1] == ("intent/drift/3000", "labels")


def test_what_is_no_alarm_calls_for_nothing(drifting: Drifting) -> None:
    for value in (b"\xff", b"[]", b'{"task": "intent", "state": "open", "wants": "retrain"}'):
        drifting._producer.produce(drifting.job.settings.topics.drift, value, b"intent", 0)
    assert drifting._producer.flush(20) == 0
    assert call(drifting.job.settings, "intent", drifting.job.folder, 0.0) is None


def test_an_outcome_is_said_with_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    say(Outcome(end="refused", reasons=("recent: not better",), release="risk-2"), as_json=False)
    assert capsys.readouterr().out == "refused by the gate: risk-2\n  recent: not better\n"
    say(Outcome(end="nothing"), as_json=True)
    assert capsys.readouterr().out == '{"end": "nothing", "reasons": [], "release": null}\n'


def test_a_task_that_is_none_is_refused_before_anything_is_read() -> None:
    done = CliRunner().invoke(app, ["retrain", "No Task", "--once"])
    assert done.exit_code == 2
    assert "is no task name" in done.output
