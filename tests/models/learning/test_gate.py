from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.datasets import Example
from models.errors import BadDataset, IntegrityError
from models.learning.gate import Exam, Opponents, Outcome, distinct, gate
from models.learning.verdict import Check, GateSettings, read_evidence, read_verdict, write_verdict
from models.releases import MODEL
from models.tasks import Task
from tests.models.learning.by_hand import make_release
from tests.models.tiny import ignore

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TASK = Task(name="tone")
LABELS = ("bad", "good", "plain")
KNOWN = {"loss": "bad", "weak": "bad", "profit": "good", "strong": "good", "table": "plain", "meeting": "plain"}
NEW = {"rugged": "bad", "moon": "good", "mooning": "good", "rekt": "bad"}
HOLDOUT = [Example(f"{word} in {number}", label) for number in range(80) for word, label in KNOWN.items()]
RECENT = [Example(f"{word} by {number}", label) for number in range(8) for word, label in NEW.items()]
SETTINGS = GateSettings(robustness_texts=60, latency_ratio=1000)  # a graph of one lookup takes microseconds: all noise


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("champion") / "tone-1", KNOWN, LABELS)


def judge(champion: Path, candidate: Path, exam: Exam | None = None, settings: GateSettings = SETTINGS) -> Outcome:
    opponents = Opponents(TASK, champion, candidate, runtime="onnxruntime-fp32")
    return gate(opponents, exam or Exam(HOLDOUT, RECENT), settings, "run-1", NOW, ignore)


def check_of(outcome: Outcome, name: str) -> Check:
    return next(one for one in outcome.verdict.checks if one.name == name)


def refused(outcome: Outcome) -> list[str]:
    return [one.name for one in outcome.verdict.checks if not one.passed]


def test_one_that_learned_the_new_words_and_kept_the_old_passes(champion: Path, tmp_path: Path) -> None:
    found = judge(champion, make_release(tmp_path / "tone-2", KNOWN | NEW, LABELS))
    verdict = found.verdict
    assert verdict.passed, verdict.refusals
    assert [one.name for one in verdict.checks] == [
        "artefact", "parity", "labels", "hold-out", "recent", "calibration", "latency", "parts", "robustness",
    ]  # fmt: skip
    assert (verdict.champion.release, verdict.candidate.release) == ("tone-1", "tone-2")
    assert verdict.holdout is not None
    assert verdict.recent is not None
    assert (verdict.holdout.n, verdict.holdout.macro_f1_before, verdict.holdout.macro_f1_after) == (480, 1.0, 1.0)
    assert verdict.recent.n == 32
    # the champion gives the first label to words it does not know: so it has the bad ones right, by chance
    assert (verdict.recent.accuracy_before, verdict.recent.accuracy_after) == (0.5, 1.0)
    assert check_of(found, "recent").reason == "of 32 texts 16 gained and 0 lost (p = 1.5e-05)"


def test_what_the_gate_says_and_saw_is_kept(champion: Path, tmp_path: Path) -> None:
    found = judge(champion, make_release(tmp_path / "tone-2", KNOWN | NEW, LABELS))
    write_verdict(tmp_path / "run", found.verdict, found.evidence)
    assert read_verdict(tmp_path / "run") == found.verdict
    assert read_evidence(tmp_path / "run") == found.evidence
    assert found.evidence is not None
    assert {one.label for one in found.evidence.recent.gained} == {"good"}
    assert {(one.true, one.given): one.times for one in found.evidence.recent.before} == {
        ("bad", "bad"): 16, ("good", "bad"): 16,
    }  # fmt: skip
    assert not found.evidence.holdout.lost
    with pytest.raises(IntegrityError, match="a run of the gate"):
        read_verdict(tmp_path)


def test_one_that_forgot_a_word_is_refused_and_the_label_is_named(champion: Path, tmp_path: Path) -> None:
    forgetful = {word: label for word, label in (KNOWN | NEW).items() if word != "strong"}
    found = judge(champion, make_release(tmp_path / "tone-2", forgetful, LABELS))
    assert refused(found) == ["hold-out", "calibration", "parts", "robustness"]
    assert "it may be worse than allowed (allowed -2.0)" in check_of(found, "hold-out").reason
    assert check_of(found, "parts").reason.startswith("worse in label good: accuracy 0.500 of 160, the champion 1.000")
    assert found.evidence is not None
    assert {one.text.split()[0] for one in found.evidence.holdout.lost} == {"strong"}
    assert [part.value for part in found.evidence.parts if part.refused and part.by == "label"] == ["good"]


def test_one_that_learned_nothing_is_refused_and_told_what_would_do(champion: Path, tmp_path: Path) -> None:
    found = judge(champion, make_release(tmp_path / "tone-2", KNOWN, LABELS))
    assert refused(found) == ["recent"]
    assert check_of(found, "recent").reason == "of 32 texts 0 gained and 0 lost (p = 1): 5 gained would show it better"


def test_copies_of_one_text_prove_nothing(champion: Path, tmp_path: Path) -> None:
    copies = [Example("To the  MOON" if number % 2 else "to the moon", "good") for number in range(50)]
    found = judge(champion, make_release(tmp_path / "tone-2", KNOWN | NEW, LABELS), Exam(HOLDOUT, copies))
    assert refused(found) == ["recent"]
    assert distinct([Example("a", "x"), Example("A ", "y"), Example("b", "x")]) == [
        Example("a", "x"),
        Example("b", "x"),
    ]


def test_a_label_may_be_new_but_none_may_go(champion: Path, tmp_path: Path) -> None:
    scam = {"prize": "scam", "gift": "scam"}
    recent = [Example(f"{word} for {number}", "scam") for number in range(5) for word in scam]
    grown = judge(champion, make_release(tmp_path / "grown", KNOWN | scam, (*LABELS, "scam")), Exam(HOLDOUT, recent))
    assert grown.verdict.passed, grown.verdict.refusals
    assert check_of(grown, "labels").reason == "4 labels, new: scam"
    assert grown.verdict.recent is not None
    assert (grown.verdict.recent.macro_f1_before, grown.verdict.recent.macro_f1_after) == (0.0, 1.0)
    rest = {word: label for word, label in (KNOWN | NEW).items() if label != "plain"}
    shrunk = judge(champion, make_release(tmp_path / "shrunk", rest, ("bad", "good")))
    assert "it does not know 'plain' any more" in check_of(shrunk, "labels").reason
    assert {"labels", "hold-out", "parts"} <= {*refused(shrunk)}


def test_what_is_broken_is_refused_and_nothing_else_is_asked(champion: Path, tmp_path: Path) -> None:
    candidate = make_release(tmp_path / "tone-2", KNOWN | NEW, LABELS)
    (candidate / MODEL).write_bytes(b"not a graph")
    found = judge(champion, candidate)
    assert refused(found) == ["artefact"]
    assert "is not the file this release was made with" in found.verdict.refusals[0]
    assert found.evidence is None
    write_verdict(tmp_path / "run", found.verdict, None)
    assert read_evidence(tmp_path / "run") is None
    with pytest.raises(IntegrityError):
        judge(candidate, champion)  # a champion that is broken is no verdict


def test_one_that_does_not_give_its_own_scores_is_refused(champion: Path, tmp_path: Path) -> None:
    bare = judge(champion, make_release(tmp_path / "bare", KNOWN | NEW, LABELS, golden=False))
    assert refused(bare) == ["parity"]
    assert "no golden set" in check_of(bare, "parity").reason


def test_one_that_is_too_sure_is_refused(tmp_path: Path) -> None:
    """Half of the texts with two words are of the one label, half of the other: scores of 50% would be right."""
    doubtful = [Example(f"loss profit {number}", "bad" if number % 2 else "good") for number in range(200)]
    modest = make_release(tmp_path / "modest", KNOWN, LABELS, strength=6.0)
    rash = make_release(tmp_path / "rash", {**KNOWN, "profit": "plain", "loss": "bad"} | NEW, LABELS)
    found = judge(modest, rash, Exam(HOLDOUT + doubtful, RECENT))
    assert "calibration" in refused(found)


def test_many_small_losses_do_not_add_up(champion: Path, tmp_path: Path) -> None:
    """The hold-out has texts that neither knows; a champion before them did."""
    strange = [Example(f"quux {number}", "good") for number in range(60)]
    candidate = make_release(tmp_path / "tone-2", KNOWN | NEW, LABELS)
    exam = Exam(HOLDOUT + strange, RECENT)
    reached = judge(champion, candidate, exam).verdict.holdout
    assert reached is not None
    better = Exam(exam.holdout, RECENT, best_before=reached.macro_f1_after + 0.03)
    found = judge(champion, candidate, better)
    assert refused(found) == ["hold-out"]
    assert "while the best champion had" in check_of(found, "hold-out").reason
    alike = Exam(exam.holdout, RECENT, best_before=reached.macro_f1_after + 0.01)
    assert judge(champion, candidate, alike).verdict.passed


def test_texts_out_of_scope_and_facets_are_parts(champion: Path, tmp_path: Path) -> None:
    strangers = [Example(f"how tall is a {number}", "out_of_scope") for number in range(3)]
    sources = ["news"] * 240 + ["chat"] * 243
    candidate = make_release(tmp_path / "tone-2", KNOWN | NEW, LABELS)
    exam = Exam(strangers + HOLDOUT, RECENT, facets={"source": sources})
    found = judge(champion, candidate, exam)
    assert found.evidence is not None
    parts = {(part.by, part.value): part.n for part in found.evidence.parts}
    assert parts["scope", "out of scope"] == 3
    assert parts["source", "news"] + parts["source", "chat"] == 480
    assert parts["source", "chat"] == 243
    assert len([by for by, _ in parts if by == "changed by"]) == 6


def test_a_floor_holds_for_every_part_that_is_large_enough(champion: Path, tmp_path: Path) -> None:
    candidate = make_release(tmp_path / "tone-2", KNOWN | NEW, LABELS)
    exam = Exam([*HOLDOUT, *(Example(f"quux {number}", "good") for number in range(40))], RECENT)
    low, high = (SETTINGS.model_copy(update={"part_floor": floor}) for floor in (0.75, 0.85))
    assert "parts" not in refused(judge(champion, candidate, exam, low))
    assert "label good" in check_of(judge(champion, candidate, exam, high), "parts").reason


def test_without_labels_there_is_no_verdict(champion: Path) -> None:
    for exam in (Exam([], RECENT), Exam(HOLDOUT, [])):
        with pytest.raises(BadDataset, match="no examples"):
            judge(champion, champion, exam)
