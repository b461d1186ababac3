from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.classifier import Classifier
from models.datasets import Example
from models.learning.checks import calibration_check, holdout_check, latency_check, parts_check, recent_check
from models.learning.latency import Pace, paces
from models.learning.parts import judged_parts, parts_of
from models.learning.sides import Answers, Sides, sample_of
from models.learning.verdict import GateSettings
from models.tasks import Task
from tests.models.learning.by_hand import make_release
from tests.models.tiny import ignore

SETTINGS = GateSettings()


def sides(targets: Sequence[int], before: Sequence[int], after: Sequence[int], texts: Sequence[str] = ()) -> Sides:
    labels, n = ("bad", "good"), len(targets)
    examples = tuple(
        Example(texts[row] if texts else f"text {row}", labels[target]) for row, target in enumerate(targets)
    )
    nobody = np.zeros(0, bool)
    answers = [Answers(np.array(one), np.full(n, 0.9), nobody) for one in (before, after)]
    return Sides(labels, examples, (), np.array(targets), *answers)


def test_a_sample_by_hand() -> None:
    found = sample_of(sides([0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]))
    assert (found.n, found.accuracy_before, found.accuracy_after) == (4, 0.75, 0.75)
    assert found.macro_f1_before == pytest.approx((0.8 + 2 / 3) / 2)
    assert found.macro_f1_after == pytest.approx((6 / 7 + 0) / 2)


def test_a_small_hold_out_lets_nothing_pass() -> None:
    """As good on 20 texts says little; on 2,000 it does."""
    few, many = ([0, 1] * 10, [0, 1] * 1000)
    assert not holdout_check(sides(few, few, few), None, SETTINGS).passed
    assert holdout_check(sides(many, many, many), None, SETTINGS).passed


def test_recent_labels_need_evidence() -> None:
    wrong, right = [1] * 8, [0] * 8
    assert recent_check(sides(right, wrong, right), SETTINGS).figures == {"gained": 8, "lost": 0, "p": 1 / 256}
    assert recent_check(sides(right[:5], wrong[:5], right[:5]), SETTINGS).passed
    assert not recent_check(sides(right[:4], wrong[:4], right[:4]), SETTINGS).passed
    mixed = recent_check(sides([0] * 16, wrong + right, right + wrong), SETTINGS)
    assert (mixed.passed, mixed.figures["gained"], mixed.figures["lost"]) == (False, 8, 8)


def test_calibration_is_compared_with_the_champions() -> None:
    tens = [0] * 100
    nine, seven = [0] * 90 + [1] * 10, [0] * 70 + [1] * 30  # all with a score of 0.9
    found = calibration_check(sides(tens, nine, seven), SETTINGS)
    assert not found.passed
    assert found.figures == pytest.approx({"before": 0.0, "after": 0.2})
    assert calibration_check(sides(tens, seven, seven), SETTINGS).passed
    assert calibration_check(sides(tens, seven, nine), SETTINGS).passed


@pytest.mark.parametrize(
    ("after", "passed"),
    [(Pace(1.0, 2.0, 0.5), True), (Pace(1.2, 2.4, 0.55), True), (Pace(1.0, 2.6, 0.5), False),
     (Pace(1.0, 2.0, 0.7), False), (Pace(1.4, 2.0, 0.5), False)],
)  # fmt: skip
def test_latency_by_hand(after: Pace, passed: bool) -> None:
    assert latency_check(Pace(1.0, 2.0, 0.5), after, SETTINGS).passed is passed


def test_microseconds_are_no_difference() -> None:
    assert latency_check(Pace(0.02, 0.03, 0.01), Pace(0.05, 0.1, 0.03), SETTINGS).passed


def test_what_reads_in_many_windows_is_measured_as_slower(tmp_path: Path) -> None:
    words = {"loss": "bad", "profit": "good"}
    whole = make_release(tmp_path / "whole", words, ("bad", "good"), max_tokens=512)
    pieces = make_release(tmp_path / "pieces", words, ("bad", "good"), max_tokens=8)
    task, texts = Task(name="tone"), ["loss profit " * 60] * 12
    one, other = (Classifier.load(folder, task, runtime="onnxruntime-fp32") for folder in (whole, pieces))
    fast, slow = paces(one, other, texts, ignore)
    assert 0 < fast.p50_ms < slow.p50_ms
    assert fast.p50_ms <= fast.p99_ms
    assert fast.in_batches_ms > 0


def test_a_part_that_is_worse_is_found_though_the_whole_is_better() -> None:
    """Of 1,000 texts the candidate repairs 100 short ones and loses 30 of the 60 long ones."""
    long, short = ["so " * 30] * 60, [f"text {row}" for row in range(940)]
    targets = [0] * 1000
    before = [0] * 60 + [1] * 100 + [0] * 840
    after = [1] * 30 + [0] * 970
    found = judged_parts(parts_of(sides(targets, before, after, long + short), {}), SETTINGS)
    assert [(part.by, part.value) for part in found if part.refused] == [("length", "21 to 40 words")]
    check = parts_check("parts", found)
    assert check.reason == "worse in length 21 to 40 words: accuracy 0.500 of 60, the champion 1.000"
    assert (check.passed, check.figures) == (False, {"parts": 3, "refused": 1})


def test_chance_in_one_of_many_parts_is_no_refusal() -> None:
    """Three of four texts lost in the worst of 20 sources: of so many one is always worst."""
    n = 400
    after = [0] * n
    after[:3] = [1] * 3
    sources = [f"source {row // 20}" for row in range(n)]
    found = judged_parts(parts_of(sides([0] * n, [0] * n, after), {"source": sources}), SETTINGS)
    assert not [part for part in found if part.refused]
    assert parts_check("parts", found).reason.startswith("in none of 22 worse; most is lost in source source 0")


@pytest.mark.slow
def test_alike_releases_are_seldom_refused_for_a_part() -> None:
    """Two releases that err on 4% of the texts each, on others: the chance to refuse one stays below `part_error`."""
    rng, refusals, runs = np.random.default_rng(0), 0, 400
    lengths = [" ".join(["so"] * int(words)) for words in rng.integers(1, 60, 1000)]
    for _ in range(runs):
        targets = rng.integers(0, 2, 1000)
        before, after = (np.where(rng.random(1000) < 0.04, 1 - targets, targets) for _ in range(2))
        made = sides(targets.tolist(), before.tolist(), after.tolist(), lengths)
        sources = [f"source {one}" for one in rng.integers(0, 12, 1000)]
        refusals += any(part.refused for part in judged_parts(parts_of(made, {"source": sources}), SETTINGS))
    assert refusals / runs <= SETTINGS.part_error
