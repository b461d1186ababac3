from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from models.drawings import confusion_counts, confusion_picture, most_confused
from models.evaluation import Evaluation, Judged, Latency, label_scores
from models.out_of_scope import Separation
from models.report import TEXT_CHARS, Contents, printable, rendered, worst_mistakes, write_report
from models.robustness import Drop, Robustness
from models.scope_grades import OutOfScope
from models.slices import by_length, slices
from tests.models.judged import judged_of
from tests.models.pages import HOSTILE, assert_words_stay_text, read

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def contents_of(judged: Judged, name: str = "dev.jsonl") -> Contents:
    found = Evaluation(
        task="tone", release="tone-1", n=len(judged.examples), accuracy=float(judged.correct.mean()), macro_f1=0.5,
        ece=0.1, ece_uncalibrated=0.2, ece_floor=0.05, aurc=0.05,
        per_label=label_scores(judged.targets, judged.chosen, judged.labels),
        latency=Latency(p50_ms=1.0, p99_ms=2.0, per_event_ms=0.5), auc=0.75, average_precision=0.5,
        positive_label=judged.labels[0],
        out_of_scope=OutOfScope(
            n_inside=3, n_outside=7, in_scope_accuracy=0.6, recall=0.8125, false_acceptance=0.1875,
            false_rejection=0.25, by_method={"energy": Separation(auc=0.9375, recall=0.5)},
        ),
    )  # fmt: skip
    drop = Drop(
        name="typing errors", changed=3, accuracy=0.5, macro_f1=0.4, accuracy_drop=0.0625, macro_f1_drop=0.1,
        label_changed=0.2,
    )  # fmt: skip
    drops = Robustness(seed=7, n=4, worst_drop=0.1, drops=(drop,), contradictions_followed=0.3)
    parts = slices(judged, {"length": by_length([one.text for one in judged.examples])})
    return Contents(found, judged, parts, drops, name, 0.5)


def small(label: str = "bad", text: str = "loss") -> Judged:
    return judged_of([label, label, "good", "good"], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.4, 0.6]], [text] * 4)


def test_a_report_has_everything_and_needs_nothing(tmp_path: Path) -> None:
    path = write_report(contents_of(small()), tmp_path / "new" / "folder", NOW)
    assert path == tmp_path / "new" / "folder" / "report.html"
    page = read(path.read_text(encoding="utf-8"))
    for words in (
        "tone-1", "dev.jsonl", "2026-03-01 12:00 UTC", "ECE before calibration", "AUC of bad", "typing errors", "6.2",
        "0 to 5 words", "energy", "0.938", "0.812 were told as such", "The worst mistakes",
    ):  # fmt: skip
        assert words in page.text, words
    sources = [value for name, value in page.attributes if name in {"src", "href"}]
    assert len(sources) == 3
    for source in sources:
        start, _, svg = source.partition(",")
        assert start == "data:image/svg+xml;base64"
        assert ET.fromstring(base64.b64decode(svg)).tag.endswith("svg")  # noqa: S314 - made right here
    assert rendered(contents_of(small()), NOW) == path.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("error")
def test_hostile_text_and_labels_stay_text() -> None:
    hostile = rendered(contents_of(small(HOSTILE, HOSTILE), HOSTILE), NOW)
    assert_words_stay_text(hostile, rendered(contents_of(small()), NOW))


@pytest.mark.filterwarnings("error")
def test_labels_of_any_script_are_drawn_as_text() -> None:
    picture = confusion_picture(np.eye(2, dtype=np.int64), ["好消息", "$x_1$"]).decode()
    assert "好消息" in picture
    assert "$x_1$" in picture


def test_half_a_surrogate_pair_does_not_stop_a_report(tmp_path: Path) -> None:
    assert write_report(contents_of(small("bad", "half \ud83d of it")), tmp_path, NOW).stat().st_size > 1000


def test_the_worst_mistakes_come_first() -> None:
    judged = small("bad", "x" * (TEXT_CHARS + 5))
    first, second = worst_mistakes(judged)
    assert (first["true"], first["given"], first["score"]) == ("bad", "good", pytest.approx(0.8))
    assert (second["true"], second["given"], second["score"]) == ("good", "bad", pytest.approx(0.6))
    assert len(first["text"]) == TEXT_CHARS + 2
    assert len(worst_mistakes(judged, most=1)) == 1
    right = replace(judged, targets=judged.chosen)
    assert worst_mistakes(right) == []
    assert "None: every example has the right label." in rendered(contents_of(right), NOW)


def test_confusions_by_hand() -> None:
    counts = confusion_counts(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert most_confused(counts) == [0, 1, 2]
    assert most_confused(counts, 1) == [0]  # in two mistakes, the others in one
    many = np.diag(np.arange(1, 51))
    many[40, 7] = 3
    assert len(most_confused(many)) == 30
    assert {40, 7} <= set(most_confused(many))


def test_what_cannot_be_printed_is_marked() -> None:
    assert printable("a\x00b\u202ec\nd") == "a\ufffdb\ufffdc\ufffdd"
    assert printable("a\nb", "\n") == "a\nb"
    assert printable("naïve 好 👍") == "naïve 好 👍"
