"""`streamgauge releases promote|rollback|status`: what they write, and what they refuse to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from models.releases import MODEL
from streams.learning.releases_topic import Standing, read_standing, write
from streams.settings import Settings
from tests.streams.commands import Done, runner
from tests.streams.handmade import make_release
from tests.streams.learning.promoted import release

HEADS = {"risk": ("benign", "fraud")}


class Desk:
    """The commands against an embedded broker, where the settings name the release `first`."""

    def __init__(self, settings: Settings, run: Callable[..., Done], folder: Path) -> None:
        self._settings, self._run = settings, run
        broker, topics = settings.broker, settings.topics
        (folder / "streamgauge.toml").write_text(
            f'broker.bootstrap = "{broker.bootstrap}"\ntopics.releases = "{topics.releases}"\n'
            f'models.device = "cpu"\nmodels.runtime = "onnxruntime-fp32"\nmodels.releases.risk = "{folder / "first"}"\n'
        )

    def run(self, *arguments: object) -> Done:
        return self._run("releases", *arguments)

    def standing(self) -> Standing:
        return read_standing(self._settings)

    def previous(self) -> tuple[str, str | None]:
        champion = self.standing()["risk", "champion"]
        return champion["release"], champion["previous"] and champion["previous"]["release"]

    def challenge(self, name: str) -> None:
        write(self._settings, {("risk", "challenger"): release(name, role="challenger", mode="shadow")})


@pytest.fixture
def desk(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Desk:
    for name in ("first", "second"):
        make_release(tmp_path / name, HEADS, name=name)
    return Desk(settings, runner(monkeypatch, capsys, tmp_path), tmp_path)


def test_promote_and_roll_back_and_forth(desk: Desk, tmp_path: Path) -> None:
    done = desk.run("promote", "risk", tmp_path / "second", "--by", "Ada")
    said = "risk: risk-second is to serve, after risk-first; workers swap within seconds\n"
    assert (done.code, done.out) == (0, said), done.err
    record = desk.standing()["risk", "champion"]
    assert (record["mode"], record["promoted_by"], record["reference"]) == ("serve", "Ada", str(tmp_path / "second"))
    assert desk.previous() == ("risk-second", "risk-first")
    assert "risk-second" in desk.run("status").out
    former = desk.standing()["risk", "challenger"]
    assert (former["release"], former["mode"], former["share"]) == ("risk-first", "shadow", 0.1)
    assert record["promoted_at"] < record["watched_until"]
    back = json.loads(desk.run("rollback", "risk", "--json").out)
    assert (back["release"], back["reference"]) == ("risk-first", str(tmp_path / "first"))
    assert desk.previous() == ("risk-first", "risk-second")
    assert desk.standing().keys() == {("risk", "champion")}, "one command, and nothing is left of the promotion"
    assert desk.run("rollback", "risk").code == 0
    assert desk.previous() == ("risk-second", "risk-first")


def test_a_rollback_withdraws_the_challenger_first(desk: Desk) -> None:
    desk.challenge("risk-third")
    assert "risk: the challenger risk-third is withdrawn" in desk.run("rollback", "risk").out
    assert desk.standing() == {}
    done = desk.run("rollback", "risk")
    assert (done.code, "nothing was promoted before" in done.err) == (2, True)


def test_a_promoted_challenger_is_one_no_more(desk: Desk) -> None:
    desk.challenge("risk-third")
    assert desk.run("promote", "risk").code == 0
    assert desk.standing()["risk", "challenger"]["release"] == "risk-first", "it goes on, to be compared"
    assert desk.previous() == ("risk-third", "risk-first")
    done = desk.run("promote", "risk")
    assert (done.code, "has no challenger" in done.err) == (2, True)


def test_nothing_is_written_for_what_cannot_serve(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "second" / MODEL).write_bytes(b"other bytes")
    done = desk.run("promote", "risk", tmp_path / "second")
    assert (done.code, "is not the file this release was made with" in done.err) == (1, True)
    make_release(tmp_path / "other", {"tone": ("up", "down")})
    assert desk.run("promote", "risk", tmp_path / "other").code == 2
    assert desk.run("promote", "risk", "risk-20990101-00000000").code == 2
    assert desk.standing() == {}


def test_another_challenger_goes_on_whatever_is_promoted(desk: Desk, tmp_path: Path) -> None:
    desk.challenge("risk-third")
    assert desk.run("promote", "risk", tmp_path / "second").code == 0
    assert desk.standing()["risk", "challenger"]["release"] == "risk-third"
    assert "the challenger risk-third is withdrawn" in desk.run("rollback", "risk").out
    assert desk.previous() == ("risk-second", "risk-first")
