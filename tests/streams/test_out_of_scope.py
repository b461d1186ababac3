"""From development examples to the worker's decision: a threshold in a release, and what it does to a chat turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.classifier import Classifier, Model
from models.datasets import Example
from models.evaluation import evaluate, fit_scope, judge
from models.out_of_scope import familiarity
from models.releases import Manifest, read_manifest, write_manifest
from models.tasks import LabelPolicy, Task
from streams.decisions import decide
from streams.events import Coordinates, Event
from streams.live import serve
from streams.scoring import Scorer, ScoringFailed
from streams.settings import load_settings
from tests.streams.handmade import make_release
from tests.streams.serving import at_work, bounds, outcomes_of

LABELS = ("falls", "opens", "rises")  # each has a word of its name, that speaks for it
TASK = Task(name="intent", labels={label: LabelPolicy(queue=label) for label in LABELS}, review_below=0.1)
KNOWN = [Example(f"it {label}", label) for label in LABELS] * 10
STRANGE = [Example(f"something else {number}", "oos") for number in range(9)]
RUNTIME = "onnxruntime-fp32"


def learned(folder: Path, labels: tuple[str, ...], examples: list[Example]) -> Manifest:
    """A release made by hand, with the scope that the examples teach."""
    make_release(folder, {"intent": labels})
    classifier = Classifier.load(folder, TASK, "cpu", RUNTIME)
    scope = fit_scope(classifier.head, judge(classifier, examples), TASK)
    manifest = read_manifest(folder)
    head = manifest.heads[0].model_copy(update={"scope": scope})
    write_manifest(folder, manifest.model_copy(update={"heads": (head,)}))
    return read_manifest(folder)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    learned(tmp_path / "release", LABELS, KNOWN + STRANGE)
    return tmp_path / "release"


def test_strangers_teach_the_threshold_and_are_graded(release: Path) -> None:
    scope = read_manifest(release).heads[0].scope
    assert scope is not None
    assert (scope.false_acceptance, scope.false_rejection, scope.n_outside) == (0.0, 0.0, 9)
    found = evaluate(Classifier.load(release, TASK, "cpu", RUNTIME), [*KNOWN, *STRANGE, Example("it rises", "oos")])
    assert (found.n, found.accuracy) == (30, 1.0)
    graded = found.out_of_scope
    assert graded is not None
    assert (graded.n_inside, graded.n_outside) == (30, 10)
    assert (graded.in_scope_accuracy, graded.recall, graded.false_rejection) == (1.0, 0.9, 0.0)
    assert {name: one.auc for name, one in graded.by_method.items()} == pytest.approx(
        {"energy": 0.95, "max softmax": 0.95}
    )


def test_without_texts_out_of_scope_there_is_no_threshold(tmp_path: Path) -> None:
    assert learned(tmp_path / "few", LABELS, KNOWN + STRANGE[:3]).heads[0].scope is None
    assert learned(tmp_path / "none", LABELS, KNOWN).heads[0].scope is None


def test_a_label_of_its_own_is_the_other_side_of_the_threshold(tmp_path: Path) -> None:
    labels = ("falls", "oos", "rises")  # the word `opens` speaks for `oos`
    examples = [one if one.label != "opens" else Example("it opens", "oos") for one in KNOWN]
    scope = learned(tmp_path / "release", labels, examples).heads[0].scope
    assert scope is not None
    classifier = Classifier.load(tmp_path / "release", TASK, "cpu", RUNTIME)
    found = evaluate(classifier, examples).out_of_scope
    assert found is not None
    assert (found.n_inside, found.n_outside, found.recall, found.in_scope_accuracy) == (20, 10, 1.0, 1.0)
    logits = classifier.read(["it opens"]).logits
    assert familiarity(logits, 1)[0] < scope.familiar_from <= familiarity(classifier.read(["rises"]).logits, 1)[0]


async def test_a_worker_sends_a_strange_turn_to_a_person(release: Path) -> None:
    """Energy comes with the scores, and a long text's windows are merged with it."""
    model = Model.load(release, "cpu", RUNTIME)
    long = "something else " * 40
    texts = ["it rises", "something else", long, f"{long} rises falls"]  # the last window makes it familiar enough
    scorer = Scorer(serve(model, [TASK]), bounds())
    async with at_work(scorer):
        outcomes = await outcomes_of(scorer, texts)
    surge = load_settings(env={}).surge
    decided = []
    for text, outcome in zip(texts, outcomes, strict=True):
        assert not isinstance(outcome, ScoringFailed)
        loaded, row = outcome
        event = Event("chat", Coordinates("chat", 0, 1), "e", "2026-03-01T12:00:00.000Z", 0.0, text, "k")
        decided.append({out.name: out.value for out in decide(event, [(loaded.served[0], row[0])], surge, "now")})
    for found, strange in zip(decided, (False, True, True, False), strict=True):
        prediction, route = found["predictions"], found["routes"]
        assert isinstance(prediction, dict) and isinstance(route, dict)
        assert prediction["out_of_scope"] is strange
        assert set(prediction["scores"]) == set(LABELS)
        assert (route["action"], "review" in found) == (("human", True) if strange else ("queue", False))
