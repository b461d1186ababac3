import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models.classifier import Classifier, Model
from models.errors import IntegrityError
from models.evaluation import evaluate
from models.releases import read_manifest, write_manifest
from models.runtimes import REFERENCE
from models.softmax import softmax
from models.tasks import Task
from models.windows import MAX_CHARS_A_TOKEN, MAX_WINDOWS, Rule, merge
from tests.models.tiny import make_examples, make_money

LONG = "profit rises " * 50


@pytest.fixture(scope="module")
def classifier(tiny_release: Path, tiny_task: Task) -> Classifier:
    return Classifier.load(tiny_release, tiny_task, "cpu", REFERENCE["cpu"], threads=2)


@pytest.fixture(scope="module")
def joint(joint_release: Path) -> Model:
    return Model.load(joint_release, "cpu", REFERENCE["cpu"], threads=1)


def test_it_says_what_it_is(classifier: Classifier) -> None:
    assert classifier.release.startswith("tone-")
    assert (classifier.task, classifier.labels, classifier.model.max_tokens) == ("tone", ("bad", "good"), 24)
    assert classifier.model.release == classifier.release
    assert (classifier.model.device, classifier.model.runtime) == ("cpu", "onnxruntime-fp32")
    assert classifier.model.slots == 2


def test_a_model_says_which_columns_are_whose(joint: Model) -> None:
    assert [(head.task, head.labels, head.columns) for head in joint.heads.values()] == [
        ("tone", ("bad", "good"), slice(0, 2)),
        ("money", ("dollar", "euro", "yen"), slice(2, 5)),
    ]
    assert list(joint.heads) == ["tone", "money"]


def test_one_run_gives_every_tasks_scores(joint: Model, tiny_task: Task, money_task: Task) -> None:
    texts = [example.text for example in (*make_examples(20, start=300), *make_money(20, start=300))]
    windows = [one.windows[0] for one in joint.encode(texts)]
    found, logits = joint.run(windows), joint.logits(windows)
    assert (list(found), logits.shape) == (["tone", "money"], (40, 5))
    for task in (tiny_task, money_task):
        head = joint.heads[task.name]
        np.testing.assert_allclose(found[task.name].sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(found[task.name], softmax(head.calibration.applied(logits[:, head.columns])))
        np.testing.assert_allclose(Classifier(joint, task).classify(texts), found[task.name], atol=1e-4)


def test_both_heads_of_a_joint_release_can_be_graded(joint: Model, tiny_task: Task, money_task: Task) -> None:
    assert evaluate(Classifier(joint, tiny_task), make_examples(40, start=200)).accuracy >= 0.8
    assert evaluate(Classifier(joint, money_task), make_money(40, start=200)).accuracy >= 0.8


def test_a_long_text_becomes_windows(classifier: Classifier) -> None:
    short, long, empty = classifier.model.encode(["profit rises", LONG, ""])
    assert ([len(window) for window in short.windows], short.cut) == ([4], False)
    assert ([len(window) for window in long.windows], long.cut) == ([24] * 5 + [22], False)
    assert (empty.windows, empty.cut) == ([[2, 3]], False)


def test_no_more_of_a_text_is_read_than_the_windows_can_hold(classifier: Classifier) -> None:
    """A text of a megabyte costs no more than one that just fits, and says that it is cut; so does one of blanks."""
    most = MAX_WINDOWS * classifier.model.max_tokens * MAX_CHARS_A_TOKEN
    huge = "profit rises " * 90_000
    whole, beginning, blank = classifier.model.encode([huge, huge[:most], " " * (most + 1)])
    assert whole == beginning
    assert (len(whole.windows), whole.cut) == (MAX_WINDOWS, True)
    assert (len(blank.windows), blank.cut) == (1, True)


def test_a_long_text_is_scored_by_its_tasks_rule(joint: Model, tiny_task: Task, money_task: Task) -> None:
    text = "dollar " * 30 + "yen " * 22 + "euro " * 30
    (long,) = joint.encode([text])
    assert len(long.windows) > 2
    rows, lengths = joint.run(long.windows), [len(window) for window in long.windows]
    texts = ["profit", text, "loss"]
    cases: list[tuple[Task, Rule, list[int]]] = [(tiny_task, "mean", []), (money_task, "max", [2])]
    for task, rule, alerts in cases:
        expected = merge(rows[task.name], lengths, rule, alerts)
        np.testing.assert_allclose(Classifier(joint, task).classify(texts)[1], expected, atol=1e-4)
    scores = Classifier(joint, money_task).classify([text])[0]
    assert scores.argmax() == 2  # the window about yen, not the longer rest


def test_it_learned_and_its_scores_are_probabilities(classifier: Classifier) -> None:
    examples = make_examples(40, start=200)
    scores = classifier.classify([example.text for example in examples])
    assert scores.dtype == np.float32
    chosen = [classifier.labels[column] for column in scores.argmax(axis=1)]
    assert np.mean([label == example.label for label, example in zip(chosen, examples, strict=True)]) >= 0.9
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_no_texts_give_no_rows(classifier: Classifier) -> None:
    assert classifier.model.encode([]) == []
    assert classifier.model.run([])["tone"].shape == (0, 2)
    assert classifier.classify([]).shape == (0, 2)


def test_padding_and_company_do_not_change_a_score(classifier: Classifier) -> None:
    texts = [example.text for example in make_examples(60)] + [LONG, "", "profit"]
    together = classifier.classify(texts)
    alone = np.concatenate([classifier.classify([text]) for text in texts])
    beside_long = np.concatenate([classifier.classify([text, LONG])[:1] for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(beside_long, alone, atol=1e-4)


@pytest.mark.parametrize("text", ["\x00", "\ud800 lone surrogate", "🙂" * 100, "a" * 100_000, "\u202e\u0300 \n\t"])
def test_any_string_is_a_text(classifier: Classifier, text: str) -> None:
    assert all(2 <= len(window) <= 24 for window in classifier.model.encode([text])[0].windows)
    assert np.isfinite(classifier.classify([text])).all()


def test_threads_may_share_it(classifier: Classifier) -> None:
    texts = [example.text for example in make_examples(40)] + [LONG]
    encoded, scores = classifier.model.encode(texts), classifier.classify(texts)

    def same(_: int) -> bool:
        return classifier.model.encode(texts) == encoded and np.allclose(classifier.classify(texts), scores, atol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(same, range(40)))


def test_a_damaged_release_does_not_load(tiny_release: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_release, tmp_path / "copy")
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json: is not the file"):
        Model.load(copy, "cpu", REFERENCE["cpu"])
    with pytest.raises(IntegrityError, match=r"tokenizer\.json: cannot be loaded"):
        Model.load(copy, "cpu", REFERENCE["cpu"], verify=False)


def test_a_model_file_that_is_none_does_not_load(tiny_release: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_release, tmp_path / "copy")
    (copy / "model.onnx").write_text("no graph")
    (copy / "golden.json").unlink()  # so that the reference alone is tried
    with pytest.raises(IntegrityError, match=r"model\.onnx: .*cannot load it"):
        Model.load(copy, "cpu", verify=False)


def test_a_manifest_that_does_not_fit_its_model_does_not_load(tiny_release: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_release, tmp_path / "copy")
    manifest = read_manifest(copy)
    head = manifest.heads[0].model_copy(update={"labels": ("bad", "good", "odd")})
    write_manifest(copy, manifest.model_copy(update={"heads": (head,)}))
    with pytest.raises(IntegrityError, match="the model gives 2 columns, its labels are 3"):
        Model.load(copy, "cpu", REFERENCE["cpu"])


def test_it_can_be_graded(classifier: Classifier) -> None:
    examples = make_examples(40, start=200)
    found = evaluate(classifier, examples, review_below=0.6)
    assert (found.task, found.release, found.n) == ("tone", classifier.release, 40)
    assert found.accuracy >= 0.9
    assert sum(score.support for score in found.per_label.values()) == 40
    assert 0 < found.latency.p50_ms <= found.latency.p99_ms
    assert found.coverage is not None
    assert evaluate(classifier, examples).coverage is None
