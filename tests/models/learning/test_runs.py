from pathlib import Path
from typing import Any

import pytest

from models.errors import IntegrityError
from models.learning.curation import AnnotatorGrade, Curated, Curation, SetAside
from models.learning.runs import (
    End,
    Outcome,
    Plan,
    Run,
    begun,
    forget_candidates,
    is_open,
    last_version,
    read_outcome,
)
from models.lineage import Parent

PLAN = Plan(
    task="tone",
    champion=Parent(release="tone-1", sha256="0" * 64),
    version=12,
    opinions_sha256="1" * 64,
    data_sha256="2" * 64,
    knobs={"epochs": 3},
)
CURATION = Curation(
    (Curated("a/0/1", "text \u8c22", "good", 0.9, 12.5, "a", ("ann", "bob")),),
    (SetAside("a/0/2", "conflict", "ann says good, bob says bad"),),
    {"ann": AnnotatorGrade(10, 2, 0.9, 0.95)},
)


def test_a_step_is_done_once_also_by_another_process(tmp_path: Path) -> None:
    made = []

    def make() -> Curation:
        made.append(1)
        return CURATION

    for _ in range(2):
        assert Run(PLAN, tmp_path).once(Curation, "curation.json", make) == CURATION
    assert made == [1]


def test_a_step_that_fails_leaves_nothing_and_is_done_again(tmp_path: Path) -> None:
    def fail() -> Curation:
        raise InterruptedError

    run = Run(PLAN, tmp_path)
    with pytest.raises(InterruptedError):
        run.once(Curation, "curation.json", fail)
    assert run.once(Curation, "curation.json", lambda: CURATION) == CURATION


def test_the_same_plan_is_the_same_run_and_any_difference_another(tmp_path: Path) -> None:
    run = Run(PLAN, tmp_path)
    assert run.plan.id.startswith("00000012-")
    assert Run(PLAN.model_copy(), tmp_path).folder == run.folder
    changes: list[dict[str, Any]] = [{"version": 13}, {"knobs": {}}, {"data_sha256": "3" * 64}]
    for change in changes:
        assert Run(PLAN.model_copy(update=change), tmp_path).folder != run.folder


def test_a_run_is_over_when_it_says_how_it_ended(tmp_path: Path) -> None:
    run = Run(PLAN, tmp_path)
    assert run.outcome is None
    run.ends(Outcome(end="refused", reasons=("recent: not better",)))
    assert (
        Run(PLAN, tmp_path).outcome
        == read_outcome(run.folder)
        == Outcome(end="refused", reasons=("recent: not better",))
    )


def test_a_run_that_was_cut_off_is_finished_before_newer_opinions_are_learned(tmp_path: Path) -> None:
    newer = PLAN.model_copy(update={"version": 13, "opinions_sha256": "4" * 64})
    first = begun(PLAN, tmp_path)
    assert is_open(first.folder)
    assert begun(newer, tmp_path).folder == first.folder
    assert begun(newer.model_copy(update={"knobs": {}}), tmp_path).plan.version == 13  # not the same job
    first.ends(Outcome(end="nothing"))
    assert not is_open(first.folder)
    assert last_version(tmp_path) == 12
    assert begun(newer, tmp_path).plan == newer


def test_what_came_to_nothing_keeps_its_words_and_loses_its_release(tmp_path: Path) -> None:
    folders = {}
    ends: list[End] = ["refused", "challenger", "failed", "waiting"]
    for number, end in enumerate(ends, 1):
        run = Run(PLAN.model_copy(update={"version": number}), tmp_path)
        run.candidate.mkdir()
        run.ends(Outcome(end=end))
        folders[end] = run
    cut_off, this = Run(PLAN, tmp_path), Run(PLAN.model_copy(update={"version": 20}), tmp_path)
    for run in (cut_off, this):
        run.candidate.mkdir()
    forget_candidates(tmp_path, but=this.folder)
    assert [end for end in ends if folders[end].candidate.is_dir()] == ["challenger", "waiting"]
    assert this.candidate.is_dir()
    assert not cut_off.candidate.is_dir()
    assert folders["refused"].outcome == Outcome(end="refused")


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    run = Run(PLAN, tmp_path)
    (run.folder / "curation.json").write_text('{"kept": 3}')
    with pytest.raises(IntegrityError, match=r"curation.json: .*remove it"):
        run.once(Curation, "curation.json", lambda: CURATION)
    (run.folder / "plan.json").write_text(PLAN.model_copy(update={"task": "other"}).model_dump_json())
    with pytest.raises(IntegrityError, match="is not this run's"):
        Run(PLAN, tmp_path)
