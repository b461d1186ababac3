"""What the job sees before it begins: whose successor, and whether enough was labelled since the last run."""

from __future__ import annotations

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
from streams.embedded import EmbeddedBroker
from streams.events import Release
from streams.learning.releases_topic import write
from streams.learning.retrain_command import champion_of, labelled_since, say
from streams.settings import Settings


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


def test_the_champion_is_what_was_named_promoted_or_set_or_else_the_newest(
    embedded: EmbeddedBroker,
    settings_at: Callable[..., Settings],
    tiny_releases: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    settings = settings_at(embedded.bootstrap)
    Producer({"bootstrap.servers": embedded.bootstrap}).list_topics(settings.topics.releases, 10)
    newest = home() / "releases" / "intent" / "newest"
    newest.parent.mkdir(parents=True)
    newest.symlink_to(tiny_releases["intent"])
    assert champion_of(settings, "intent", None) == newest == find_release("intent")
    here = str(tiny_releases["intent"])
    chosen = settings.model_copy(update={"models": settings.models.model_copy(update={"releases": {"intent": here}})})
    assert champion_of(chosen, "intent", None) == tiny_releases["intent"]
    parent = as_parent(newest)
    record: Release = {
        "task": "intent", "role": "champion", "mode": "serve", "share": 1.0, "reference": str(newest),
        "release": parent.release, "sha256": parent.sha256, "promoted_at": "2026-03-01T12:00:00.000Z",
        "promoted_by": "test", "previous": None,
    }  # fmt: skip
    write(settings, {("intent", "champion"): record})
    assert champion_of(chosen, "intent", None) == newest.resolve()
    assert champion_of(settings, "intent", here) == tiny_releases["intent"]
    write(settings, {("intent", "champion"): record | {"sha256": "0" * 64}})
    with pytest.raises(IntegrityError, match="is not the manifest that was promoted"):
        champion_of(settings, "intent", None)


def test_an_outcome_is_said_with_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    say(Outcome(end="refused", reasons=("recent: not better",), release="risk-2"), as_json=False)
    assert capsys.readouterr().out == "refused by the gate: risk-2\n  recent: not better\n"
    say(Outcome(end="nothing"), as_json=True)
    assert capsys.readouterr().out == '{"end": "nothing", "reasons": [], "release": null}\n'


def test_a_task_that_is_none_is_refused_before_anything_is_read() -> None:
    done = CliRunner().invoke(app, ["retrain", "No Task", "--once"])
    assert done.exit_code == 2
    assert "is no task name" in done.output
