import numpy as np
import pytest

from models.datasets import Example
from models.held_out import held_out_calibration, held_out_f1, held_out_scores
from models.lessons import Lesson, Subject, subjects_of
from models.tasks import LabelPolicy, Task
from models.temperature import Calibration, fit_calibration, negative_log_likelihood
from models.windows import TextWindows

MEAN = Task(name="tone")
MAX = Task(name="tone", labels={"bad": LabelPolicy(alert_above=0.5)}, long_text="max")


def subject_of(*labels: str) -> Subject:
    dev = [Example(f"text {row}", label) for row, label in enumerate(labels)]
    (subject,) = subjects_of([Lesson(MEAN, [Example("x", "bad"), Example("y", "good")], "x", dev)], seed=1)
    return subject


def test_a_long_text_is_graded_by_all_its_windows_and_the_tasks_rule() -> None:
    windows = TextWindows([[1] * 30, [1] * 10, [1] * 5], [2, 3])  # two of the first text, one of the second
    logits = np.log(np.array([[0.2, 0.8], [0.9, 0.1], [0.1, 0.9]], np.float32))
    subject = subject_of("good", "good")
    mean = held_out_scores(logits, windows, subject, MEAN)
    assert mean[0] == pytest.approx([(30 * 0.2 + 10 * 0.9) / 40, (30 * 0.8 + 10 * 0.1) / 40])
    assert held_out_f1(logits, windows, subject, MEAN) == 1.0
    highest = held_out_scores(logits, windows, subject, MAX)
    assert highest[0] == pytest.approx([0.9, 0.1])
    assert held_out_f1(logits, windows, subject, MAX) < 1.0


def test_the_calibration_of_short_texts_is_that_of_their_windows() -> None:
    rng = np.random.default_rng(1)
    subject = subject_of(*["good", "bad"] * 120)
    logits = rng.normal(size=(240, 2)).astype(np.float32) * 4
    windows = TextWindows([[1]] * 240, list(range(1, 241)))
    found = held_out_calibration(logits, windows, subject, MEAN)
    assert found == fit_calibration(lambda its: negative_log_likelihood(logits, subject.dev_targets, its), logits, 240)
    assert len(found.bends) == 2


def test_the_temperature_of_long_texts_is_the_likeliest_for_their_merged_scores() -> None:
    rng = np.random.default_rng(2)
    subject = subject_of(*["good", "bad"] * 40)
    signs = np.where(subject.dev_targets == 1, 1.0, -1.0).repeat(3)
    right = np.column_stack([-signs, signs]) * 1.5 + rng.normal(size=(240, 2)) * 4  # windows err, their mean less
    logits, windows = right.astype(np.float32), TextWindows([[1] * 9] * 240, list(range(3, 241, 3)))
    targets = subject.dev_targets.repeat(3)

    def loss(temperature: float) -> float:
        scores = held_out_scores(logits, windows, subject, MEAN, Calibration(temperature))
        return float(-np.log(scores[np.arange(80), subject.dev_targets]).mean() + 2 * (1 / temperature - 1) ** 2 / 80)

    found = held_out_calibration(logits, windows, subject, MEAN)
    assert found.bends == ()  # 80 texts do not show one
    assert loss(found.temperature) <= min(loss(found.temperature * 1.05), loss(found.temperature / 1.05))
    alone = fit_calibration(lambda its: negative_log_likelihood(logits, targets, its), logits, 80)
    assert found.temperature < alone.temperature  # merging has flattened already
