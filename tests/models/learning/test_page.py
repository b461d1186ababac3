from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.errors import IntegrityError
from models.learning.approval import decide
from models.learning.page import rendered, write_page
from models.learning.run_files import (
    AnnotatorLine,
    CurveFile,
    DataPart,
    Reasoned,
    RunData,
    write_data,
    write_live,
)
from models.learning.sequential import Duel, DuelSettings, standing
from models.learning.verdict import write_verdict
from tests.models.learning.verdicts import made_evidence, made_verdict
from tests.models.pages import HOSTILE, assert_words_stay_text, pictures_of, read

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)


def made_run(folder: Path, word: str = "good") -> Path:
    """A run with every file there can be, `word` wherever a word comes from people."""
    labels = ("bad", word)
    write_verdict(folder, made_verdict(approval=True), made_evidence(labels, word))
    part = DataPart(name="new feedback", texts=3, labels={word: 3}, since=NOW, until=NOW)
    annotator = AnnotatorLine(name=word, opinions=9, agreement=0.5, weight=0.625, quarantined=word)
    aside = Reasoned(reason="burst", texts=7, quarantined=True)
    write_data(folder, RunData(version=4, parts=(part,), set_aside=(aside,), annotators=(annotator,)))
    with CurveFile(folder) as curves:
        for step in range(5):
            curves.step({"train/loss": 1 / (1 + step), word: 0.5}, 10 * step)
    duels = [Duel(f"text {row}", "a", "b", "a") for row in range(60)]
    write_live(folder, standing(duels, DuelSettings()))
    return folder


def test_the_page_has_everything_and_needs_nothing(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run-1")
    decide(run, True, "Ann Other", NOW, "the lost texts are fine")
    path = write_page(run, NOW)
    page = read(path.read_text(encoding="utf-8"))
    for words in (
        "tone: run run-1", "tone-2 is to follow tone-1", "Passed the gate, approved", "Ann Other, 2026-03-02 08:30 UTC",
        "the lost texts are fine", "0.900 → 0.910", "of 32 texts 16 gained and 0 lost (p = 1.5e-05)",
        "Version 4 of the opinions", "new feedback", "burst", "0.625", "Only the candidate has right", "0.812",
        "Promote. Better: of 30 labelled texts 30 gained and 0 lost", "1e-06, refused", "candidate right", "1.000",
        "evidence that it is better",
    ):  # fmt: skip
        assert words in page.plain, words
    pictures = [value for name, value in page.attributes if name in {"src", "href"}]
    assert len(pictures) == 1 + 2 + 4  # live, curves, two confusions of two samples
    for picture in pictures:
        start, _, svg = picture.partition(",")
        assert start == "data:image/svg+xml;base64"
        assert ET.fromstring(base64.b64decode(svg)).tag.endswith("svg")  # noqa: S314 - made right here
    assert rendered(run, NOW) == path.read_text(encoding="utf-8")


def test_what_a_person_has_to_do_is_said(tmp_path: Path) -> None:
    write_verdict(tmp_path / "run-1", made_verdict(approval=True), None)
    page = read(rendered(tmp_path / "run-1", NOW))
    assert "waits for a person" in page.plain
    assert "streamgauge retrain approve run-1" in page.plain
    decide(tmp_path / "run-1", False, "Ann", NOW)
    assert "Passed the gate, rejected" in read(rendered(tmp_path / "run-1", NOW)).plain


def test_a_refusal_says_why(tmp_path: Path) -> None:
    write_verdict(tmp_path / "run-1", made_verdict(passed=False), None)
    page = read(rendered(tmp_path / "run-1", NOW))
    assert "Refused by the gate recent: of 32 texts" in page.plain


def test_a_page_needs_the_verdict_alone(tmp_path: Path) -> None:
    write_verdict(tmp_path / "run-1", made_verdict(), None)
    page = read(rendered(tmp_path / "run-1", NOW))
    assert "Passed the gate" in page.plain
    assert "img" not in page.tags
    with pytest.raises(IntegrityError, match="a run of the gate"):
        rendered(tmp_path, NOW)


@pytest.mark.filterwarnings("error")
def test_hostile_words_stay_text(tmp_path: Path) -> None:
    hostile = made_run(tmp_path / "hostile", HOSTILE)
    plain = made_run(tmp_path / "plain")
    for run, name in ((hostile, HOSTILE), (plain, "Ann")):
        decide(run, True, name, NOW, name)
    html = rendered(hostile, NOW)
    assert_words_stay_text(html, rendered(plain, NOW))
    assert not [picture for picture in pictures_of(html) if "mathdefault" in picture]


def test_of_many_labels_the_most_confused_are_shown_in_both_pictures(tmp_path: Path) -> None:
    labels = tuple(f"intent {row:03}" for row in range(150))
    evidence = made_evidence(labels)
    seen = evidence.holdout
    many = [seen.before[0].model_copy(update={"true": one, "given": one, "times": 3}) for one in labels]
    holdout = seen.model_copy(update={"before": (*many, seen.before[2]), "after": tuple(many)})
    write_verdict(tmp_path / "run-1", made_verdict(), evidence.model_copy(update={"holdout": holdout}))
    html = rendered(tmp_path / "run-1", NOW)
    assert "Shown are the 30 labels with the most mistakes; 120 others are left out." in read(html).plain
    pictures = pictures_of(html)[:2]
    names = [sorted(set(re.findall(r"intent \d{3}", picture))) for picture in pictures]
    assert names[0] == names[1]
    assert len(names[0]) == 30
