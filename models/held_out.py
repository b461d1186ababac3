"""What held-out texts say of a model while it is trained: long ones by all their windows, as they will be served."""

import numpy as np
import numpy.typing as npt

from models.evaluation import macro_f1
from models.lessons import Subject
from models.softmax import softmax
from models.tasks import Task
from models.temperature import UNTEMPERED, Calibration, fit_calibration, negative_log_likelihood
from models.windows import TextWindows, merge_all

Floats = npt.NDArray[np.float32]


def held_out_scores(
    logits: Floats, windows: TextWindows, subject: Subject, task: Task, calibration: Calibration = UNTEMPERED
) -> Floats:
    """Probabilities [texts, labels] from the logits [windows, labels] of a subject's development texts."""
    rows = softmax(calibration.applied(logits))
    return merge_all(rows, windows, task.long_text, task.alert_columns(subject.labels))


def held_out_f1(logits: Floats, windows: TextWindows, subject: Subject, task: Task) -> float:
    """Macro-F1 of a subject's development texts."""
    chosen = held_out_scores(logits, windows, subject, task).argmax(axis=1)
    return macro_f1(subject.dev_targets, chosen, subject.labels)


def held_out_calibration(logits: Floats, windows: TextWindows, subject: Subject, task: Task) -> Calibration:
    """What the windows' logits are to be divided by, so that the texts' scores are likeliest.

    Where windows are merged the mean is flatter than each of them, and what fits lone windows would be too warm.
    """
    texts = np.arange(len(subject.dev_targets))

    def loss(calibration: Calibration) -> float:
        if len(windows.ids) == len(texts):
            return negative_log_likelihood(logits, subject.dev_targets, calibration)
        scores = held_out_scores(logits, windows, subject, task, calibration)
        return -float(np.log(np.maximum(scores[texts, subject.dev_targets], 1e-12)).mean())

    return fit_calibration(loss, logits, len(texts))
