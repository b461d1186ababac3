from pathlib import Path

import pytest

from models.classifier import Classifier
from models.datasets import Example
from models.evaluation import evaluate, judge
from models.robustness import Drop, Robustness, robustness
from models.tasks import Task, load_task
from tests.models.tiny import ignore, make_examples
from tests.streams.handmade import make_release


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Knows the words `falls`, `opens`, `rises` for its three labels, written just so."""
    labels = ("negative", "neutral", "positive")
    folder = make_release(tmp_path_factory.mktemp("by-hand") / "release", {"sentiment": labels})
    return Classifier.load(folder, load_task("sentiment"), runtime="onnxruntime-fp32")


def drop_of(found: Robustness, name: str) -> Drop:
    return next(one for one in found.drops if one.name == name)


def test_drops_by_hand(classifier: Classifier) -> None:
    examples = [Example("it falls", "negative"), Example("it opens", "neutral"), Example("it rises", "positive")]
    found = robustness(classifier, judge(classifier, examples), 7, ignore)
    assert (found.n, found.seed) == (3, 7)
    casing, typing, names = (drop_of(found, name) for name in ("casing", "typing errors", "unseen entities"))
    # unknown words speak for no label, and the first label is the best of equals: a third stays right by chance
    for lost in (casing, typing):
        assert (lost.changed, lost.accuracy, lost.accuracy_drop) == pytest.approx((3, 1 / 3, 2 / 3))
        assert lost.label_changed == pytest.approx(2 / 3)
    assert (names.changed, names.accuracy_drop, names.label_changed) == (0, 0, 0)
    assert drop_of(found, "negation, aside").changed == drop_of(found, "appended noise").changed == 3
    assert found.worst_drop == pytest.approx(1 - casing.macro_f1)
    # "It is not true that it falls" still falls, for one who counts words
    assert found.contradictions_followed == 0.0


def test_the_same_seed_gives_the_same_table(tiny_release: Path, tiny_task: Task) -> None:
    classifier = Classifier.load(tiny_release, tiny_task, runtime="onnxruntime-fp32")
    judged = judge(classifier, make_examples(30, start=400))
    found = robustness(classifier, judged, 3, ignore)
    assert found == robustness(classifier, judged, 3, ignore)
    assert found.contradictions_followed is None  # its labels are neither positive nor negative
    before = evaluate(classifier, make_examples(30, start=400))
    for one in found.drops:
        assert one.accuracy + one.accuracy_drop == pytest.approx(before.accuracy)
        assert one.macro_f1 + one.macro_f1_drop == pytest.approx(before.macro_f1)
        assert found.worst_drop >= max(one.accuracy_drop, one.macro_f1_drop) - 1e-12
