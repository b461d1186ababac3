import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.classifier import Classifier, Encoded, length_sorted_batches, softmax
from models.errors import IntegrityError
from models.evaluation import evaluate
from tests.models.tiny import make_examples

LONG = "profit rises " * 50


@pytest.fixture(scope="module")
def classifier(tiny_release: Path) -> Classifier:
    return Classifier.load(tiny_release, "cpu", threads=1)


def test_it_says_what_it_is(classifier: Classifier) -> None:
    assert classifier.release.startswith("tone-")
    assert (classifier.task, classifier.labels, classifier.max_tokens) == ("tone", ("bad", "good"), 24)
    assert classifier.device == "cpu"


def test_a_long_text_is_cut_and_says_so(classifier: Classifier) -> None:
    short, long, empty = classifier.encode(["profit rises", LONG, ""])
    assert (len(short.ids), short.cut) == (4, False)
    assert (len(long.ids), long.cut) == (24, True)
    assert (empty.ids, empty.cut) == ([2, 3], False)


def test_it_learned_and_its_scores_are_probabilities(classifier: Classifier) -> None:
    examples = make_examples(40, start=200)
    scores = classifier.classify([example.text for example in examples])
    assert scores.dtype == np.float32
    chosen = [classifier.labels[column] for column in scores.argmax(axis=1)]
    assert np.mean([label == example.label for label, example in zip(chosen, examples, strict=True)]) >= 0.9
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


def test_no_texts_give_no_rows(classifier: Classifier) -> None:
    assert classifier.encode([]) == []
    assert classifier.run([]).shape == (0, 2)
    assert classifier.classify([]).shape == (0, 2)


def test_padding_and_company_do_not_change_a_score(classifier: Classifier) -> None:
    texts = [example.text for example in make_examples(60)] + [LONG, "", "profit"]
    together = classifier.classify(texts)
    alone = np.concatenate([classifier.run(classifier.encode([text])) for text in texts])
    beside_long = np.concatenate([classifier.run(classifier.encode([text, LONG]))[:1] for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(beside_long, alone, atol=1e-4)


@pytest.mark.parametrize("text", ["\x00", "\ud800 lone surrogate", "🙂" * 100, "a" * 100_000, "\u202e\u0300 \n\t"])
def test_any_string_is_a_text(classifier: Classifier, text: str) -> None:
    assert len(classifier.encode([text])[0].ids) <= 24
    assert np.isfinite(classifier.classify([text])).all()


def test_threads_may_share_it(classifier: Classifier) -> None:
    texts = [example.text for example in make_examples(40)] + [LONG]
    expected = classifier.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(lambda _: classifier.encode(texts), range(40)))


def test_a_damaged_release_does_not_load(tiny_release: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_release, tmp_path / "copy")
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json: is not the file"):
        Classifier.load(copy, "cpu")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json: cannot be loaded"):
        Classifier.load(copy, "cpu", verify=False)


def test_a_model_file_that_is_none_does_not_load(tiny_release: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_release, tmp_path / "copy")
    (copy / "model.onnx").write_text("no graph")
    with pytest.raises(IntegrityError, match=r"model\.onnx: cannot be loaded"):
        Classifier.load(copy, "cpu", verify=False)


def test_it_can_be_graded(classifier: Classifier) -> None:
    examples = make_examples(40, start=200)
    found = evaluate(classifier, examples, review_below=0.6)
    assert (found.task, found.release, found.n) == ("tone", classifier.release, 40)
    assert found.accuracy >= 0.9
    assert sum(score.support for score in found.per_label.values()) == 40
    assert 0 < found.latency.p50_ms <= found.latency.p99_ms
    assert found.coverage is not None
    assert evaluate(classifier, examples).coverage is None


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = length_sorted_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


@given(arrays.arrays(np.float32, (4, 3), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_softmax_is_a_distribution_and_keeps_the_order(logits: np.ndarray) -> None:
    scores = softmax(logits)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    chosen = logits.argmax(axis=1)
    np.testing.assert_array_equal(scores[range(4), chosen], scores.max(axis=1))


def test_softmax_by_hand() -> None:
    np.testing.assert_allclose(softmax(np.log(np.array([[1.0, 3.0]]))), [[0.25, 0.75]], rtol=1e-6)


def test_an_encoded_text_is_two_fields() -> None:
    assert Encoded([1], False)._fields == ("ids", "cut")
