from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.datasets import Example
from models.errors import IntegrityError
from models.learning.curation import AnnotatorGrade, Curated, Curation, SetAside
from models.learning.run_files import (
    CURVES,
    DATA,
    CurveFile,
    curves_of,
    read_data,
    read_live,
    run_data,
    write_data,
    write_live,
)
from models.learning.sequential import DuelSettings, standing


def test_the_data_of_a_run_by_hand(tmp_path: Path) -> None:
    kept = tuple(
        Curated(f"chat/0/{row}", f"text {row}", "scam" if row else "benign", 1.0, 86_400.0 * row, "chat", ("ann",))
        for row in range(3)
    )
    aside = (SetAside("a", "burst", ""), SetAside("b", "duplicate", ""), SetAside("c", "burst", ""))
    grades = {"bob": AnnotatorGrade(9, 3, 0.5, 0.6, "contrary"), "ann": AnnotatorGrade(3, 1, 1.0, 0.97)}
    curation = Curation(kept=kept, set_aside=aside, annotators=grades)
    made = run_data(4, {"new feedback": kept, "hold-out": [Example("x", "benign")]}, curation)
    new, old = made.parts
    assert (new.name, new.texts, new.labels) == ("new feedback", 3, {"scam": 2, "benign": 1})
    assert (new.since, new.until) == (datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 3, tzinfo=UTC))
    assert (old.texts, old.since) == (1, None)
    assert [(one.reason, one.texts, one.quarantined) for one in made.set_aside] == [
        ("burst", 2, True), ("duplicate", 1, False),
    ]  # fmt: skip
    assert [(one.name, one.quarantined) for one in made.annotators] == [("ann", None), ("bob", "contrary")]
    write_data(tmp_path, made)
    assert read_data(tmp_path) == made
    (tmp_path / DATA).write_text("[")
    with pytest.raises(IntegrityError, match="data"):
        read_data(tmp_path)


def test_a_run_that_was_killed_goes_on_with_its_curves(tmp_path: Path) -> None:
    with CurveFile(tmp_path) as curves:
        curves.step({"train/loss": 1.0}, 10)
        curves.step({"train/loss": 0.75, "dev/macro_f1": 0.5}, 20)
    with (tmp_path / CURVES).open("a") as file:
        file.write('{"step": 30, "val')  # killed
    with CurveFile(tmp_path) as curves:
        curves.step({"train/loss": 0.5}, 20)
    assert curves_of(tmp_path) == {"train/loss": [(10, 1.0), (20, 0.75)], "dev/macro_f1": [(20, 0.5)]}
    with CurveFile(tmp_path) as curves:
        curves.step({"train/loss": 0.5}, 20)
    assert curves_of(tmp_path)["train/loss"] == [(10, 1.0), (20, 0.5)]
    assert curves_of(tmp_path / "none") == {}


def test_the_live_comparison_is_kept(tmp_path: Path) -> None:
    found = standing([], DuelSettings())
    assert read_live(tmp_path) is None
    write_live(tmp_path, found)
    assert read_live(tmp_path) == found
