from collections.abc import Mapping
from pathlib import Path

import pytest

from models.lessons import Lesson
from models.seeds import train_seeds
from models.tasks import Task
from models.train_settings import TrainSettings
from tests.models.tiny import ignore, make_examples

QUICK = TrainSettings(method="head", epochs=3, batch_texts=16, threads=1, seed=11)


class Written:
    def __init__(self) -> None:
        self.names: set[str] = set()

    def step(self, values: Mapping[str, float], step: int) -> None:
        self.names |= set(values)


def test_the_best_of_several_seeds_says_how_far_they_lie_apart(tiny_task: Task, tmp_path: Path) -> None:
    lessons = [Lesson(tiny_task, make_examples(60), "tone.jsonl")]
    curves, shares = Written(), []
    best = train_seeds(lessons, QUICK, 3, lambda what, done, total: shares.append(done / total), curves, tmp_path)
    seeds = best.notes["seeds"]
    f1s = seeds["dev_macro_f1"]
    assert list(f1s) == ["11", "12", "13"]
    assert f1s[str(best.settings.seed)] == max(f1s.values()) == best.heads[0].dev_macro_f1
    assert seeds["mean"] == pytest.approx(sum(f1s.values()) / 3)
    assert seeds["deviation"] == pytest.approx((sum((f1 - seeds["mean"]) ** 2 for f1 in f1s.values()) / 2) ** 0.5)
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert {"seed-11/dev/macro_f1/tone", "seed-13/dev/macro_f1/tone"} <= curves.names


def test_one_seed_is_a_plain_training(tiny_task: Task) -> None:
    lessons = [Lesson(tiny_task, make_examples(60), "tone.jsonl")]
    assert train_seeds(lessons, QUICK, 1, ignore).notes == {}
