"""What held-out texts say of a model while it is trained: long ones by all their windows, as they will be served."""

import numpy as np
import numpy.typing as npt

from models.calibration import TEMPERATURES, fit_temperature, golden_section
from models.evaluation import macro_f1
from models.lessons import Subject
from models.softmax import softmax
from models.tasks import Task
from models.windows import TextWindows, merge_all

Floats = npt.NDArray[np.float32]


def held_out_scores(
    logits: Floats, windows: TextWindows, subject: Subject, task: Task, temperature: float = 1.0
) -> Floats:
    """Probabilities [texts, labels] from the logits [windows, labels] of a subject's development texts."""
    rows = softmax(logits / np.float32(temperature))
    return merge_all(rows, windows, task.long_text, task.alert_columns(subject.labels))


def held_out_f1(logits: Floats, windows: TextWindows, subject: Subject, task: Task) -> float:
    """Macro-F1 of a subject's development texts."""
    chosen = held_out_scores(logits, windows, subject, task).argmax(axis=1)
    return macro_f1(subject.dev_targets, chosen, subject.labels)


def held_out_temperature(logits: Floats, windows: TextWindows, subject: Subject, task: Task) -> float:
    """The temperature for the windows' logits that makes the texts' scores likeliest; see `evaluation.fit_temperature`.

    Where windows are merged the mean is flatter than each of them, and one fitted to lone windows would be too warm.
    """
    if len(windows.ids) == len(windows.ends):
        return fit_temperature(logits, subject.dev_targets)
    texts = np.arange(len(subject.dev_targets))

    def cost(inverse: float) -> float:
        scores = held_out_scores(logits, windows, subject, task, 1 / inverse)
        likelihood = np.log(np.maximum(scores[texts, subject.dev_targets], 1e-12)).mean()
        return float(2 * (inverse - 1) ** 2 / len(texts) - likelihood)

    coldest, hottest = TEMPERATURES
    return 1 / golden_section(cost, 1 / hottest, 1 / coldest)
