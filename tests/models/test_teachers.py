import shutil
from pathlib import Path

import numpy as np
import pytest

from models.classifier import Classifier
from models.errors import BadTeacher, IntegrityError, ReleaseNotFound
from models.tasks import Task
from models.teachers import CHUNK_TEXTS, find_teachers, soft_labels
from tests.models.tiny import ignore, make_examples

pytestmark = pytest.mark.usefixtures("home")
LABELS = ("bad", "good")
TEXTS = [example.text for example in make_examples(30, start=300)]


def chunks(home: Path) -> list[Path]:
    return sorted((home / "soft-labels").glob("*/*.npy"))


def test_an_ensemble_is_the_mean_of_its_releases(tiny_task: Task, tiny_release: Path, joint_release: Path) -> None:
    each = [Classifier.load(release, tiny_task, "cpu").classify(TEXTS) for release in (tiny_release, joint_release)]
    assert np.abs(each[0] - each[1]).max() > 0.01  # they are of two minds
    teachers = find_teachers(tiny_task, [str(tiny_release), str(joint_release)], LABELS)
    found = soft_labels(tiny_task, teachers, TEXTS, LABELS, ignore, "cpu")
    np.testing.assert_allclose(found, (each[0] + each[1]) / 2, atol=1e-4)
    turned = soft_labels(tiny_task, teachers, TEXTS, LABELS[::-1], ignore, "cpu")
    np.testing.assert_array_equal(turned, found[:, ::-1])


def test_what_was_scored_once_needs_no_model_any_more(
    tiny_task: Task, tiny_release: Path, home: Path, tmp_path: Path
) -> None:
    release = Path(shutil.copytree(tiny_release, tmp_path / "copy"))
    (teacher,) = find_teachers(tiny_task, [str(release)], LABELS)
    first = soft_labels(tiny_task, [teacher], TEXTS, LABELS, ignore, "cpu")
    (release / "model.onnx").unlink()
    np.testing.assert_array_equal(soft_labels(tiny_task, [teacher], TEXTS, LABELS, ignore, "cpu"), first)
    with pytest.raises(IntegrityError, match=r"model\.onnx: cannot be read"):
        soft_labels(tiny_task, [teacher], [*TEXTS, "one more"], LABELS, ignore, "cpu")


def test_an_interrupted_run_goes_on_where_it_stopped(tiny_task: Task, tiny_release: Path, home: Path) -> None:
    texts = [example.text for example in make_examples(2 * CHUNK_TEXTS + 10)]
    teachers = find_teachers(tiny_task, [str(tiny_release)], LABELS)

    def interrupt(what: str, done: int, total: int) -> None:
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        soft_labels(tiny_task, teachers, texts, LABELS, interrupt, "cpu")
    times = {path: path.stat().st_mtime_ns for path in chunks(home)}
    assert len(times) == 2
    whole = soft_labels(tiny_task, teachers, texts, LABELS, ignore, "cpu")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(chunks(home)) == 3
    assert whole.shape == (len(texts), 2)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("damage", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_a_damaged_chunk_is_scored_again(tiny_task: Task, tiny_release: Path, home: Path, damage: bytes) -> None:
    teachers = find_teachers(tiny_task, [str(tiny_release)], LABELS)
    first = soft_labels(tiny_task, teachers, TEXTS, LABELS, ignore, "cpu")
    (chunk,) = chunks(home)
    chunk.write_bytes(damage)
    np.testing.assert_allclose(soft_labels(tiny_task, teachers, TEXTS, LABELS, ignore, "cpu"), first, atol=1e-6)
    assert np.load(chunk).shape == (len(TEXTS), 2)


def test_another_rule_for_long_texts_is_another_teacher(tiny_task: Task, tiny_release: Path) -> None:
    (one,) = find_teachers(tiny_task, [str(tiny_release)], LABELS)
    alerting = Task.model_validate({**tiny_task.model_dump(), "labels": {"bad": {"alert_above": 0.5}}})
    (other,) = find_teachers(alerting.model_copy(update={"long_text": "max"}), [str(tiny_release)], LABELS)
    assert one.key != other.key


def test_who_cannot_teach_is_told_why(tiny_task: Task, tiny_release: Path, tmp_path: Path) -> None:
    with pytest.raises(BadTeacher, match="it does not know: 'ugly'; the data do not have: 'good'"):
        find_teachers(tiny_task, [str(tiny_release)], ["bad", "ugly"])
    with pytest.raises(BadTeacher, match="is named twice"):
        find_teachers(tiny_task, [str(tiny_release), str(tiny_release)], LABELS)
    with pytest.raises(ReleaseNotFound, match="has no release 'nobody'"):
        find_teachers(tiny_task, ["nobody"], LABELS)


def test_no_texts_are_no_work(tiny_task: Task, tiny_release: Path) -> None:
    teachers = find_teachers(tiny_task, [str(tiny_release)], LABELS)
    assert soft_labels(tiny_task, teachers, [], LABELS, ignore, "cpu").shape == (0, 2)
