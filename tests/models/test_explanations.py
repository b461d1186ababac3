"""Which words a score rests on: exact spans for any text, the right words, and bounded work."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from models.classifier import Classifier, Span
from models.explanations import MOST_WORDS, explain, occlude, weigh
from models.runtimes import REFERENCE, Floats
from models.tasks import LabelPolicy, Task
from models.windows import MAX_WINDOWS
from streams.classify_command import classify
from tests.streams.handmade import make_release

MIXED = "profit loss 央行加息、股价ひカ주가ราคาหุ้น👍🏽👨‍👩‍👧🇩🇪e\u0301\u200d\u3000-5%.\ud800"
TEXTS = st.text(st.sampled_from(MIXED) | st.characters(), max_size=200)


@pytest.fixture(scope="module")
def words_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model by hand: `falls` speaks for bad, `opens` for flat, `rises` for good, and no other word for anything."""
    return make_release(tmp_path_factory.mktemp("words") / "release", {"tone": ("bad", "flat", "good")}, max_tokens=24)


@pytest.fixture(scope="module")
def tone(words_release: Path) -> Classifier:
    return Classifier.load(words_release, Task(name="tone"), "cpu", REFERENCE["cpu"], threads=1)


@pytest.fixture(scope="module")
def strict(words_release: Path) -> Classifier:
    """Of its long texts the worst window counts."""
    task = Task(name="tone", labels={"bad": LabelPolicy(alert_above=0.5)}, long_text="max")
    return Classifier.load(words_release, task, "cpu", REFERENCE["cpu"], threads=1)


@pytest.fixture(scope="module")
def bert(joint_release: Path, money_task: Task) -> Classifier:
    """Reads as BERT does: in lower case, without accents, ideographs apart."""
    return Classifier.load(joint_release, money_task, "cpu", REFERENCE["cpu"], threads=1)


@pytest.mark.parametrize("text", ["shares {} today", "银行 {}, 股 opens", "{}", "👍🏽 {} e\u0301", "x " * 60 + "{} y"])
@pytest.mark.parametrize("telling", ["falls", "rises"])
def test_the_word_that_tells_weighs_most(tone: Classifier, text: str, telling: str) -> None:
    whole = text.format(telling)
    found = explain(tone, whole, {"falls": "bad", "rises": "good"}[telling])
    weights = {whole[word.start : word.end]: word.weight for word in found.words}
    assert max(weights, key=lambda word: weights[word]) == telling
    assert weights[telling] > 0
    assert all(abs(weight) < 1e-6 for word, weight in weights.items() if word not in (telling, "opens"))
    assert weights.get("opens", -1) < 0


def test_the_score_is_the_served_one_and_a_label_may_be_chosen(tone: Classifier) -> None:
    text = "the bank opens and rises and rises"
    row = tone.classify([text])[0]
    best, other = explain(tone, text), explain(tone, text, label="flat")
    assert (best.label, other.label) == ("good", "flat")
    assert best.score == pytest.approx(float(row[2]), abs=1e-5)
    assert other.score == pytest.approx(float(row[1]), abs=1e-5)
    with pytest.raises(ValueError, match="ugly"):
        explain(tone, text, label="ugly")


def test_a_weight_is_the_score_without_the_word(tone: Classifier) -> None:
    text = "shares of the bank falls, opens 5% and rises"
    found = explain(tone, text)
    without = [text[: word.start] + text[word.end :] for word in found.words]
    scores = tone.classify(without)[:, tone.labels.index(found.label)]
    np.testing.assert_allclose([word.weight for word in found.words], found.score - scores, atol=1e-4)


@given(TEXTS)
@settings(deadline=None, max_examples=60)
def test_spans_are_exact_in_any_script(bert: Classifier, text: str) -> None:
    found = explain(bert, text)
    spans = [(word.start, word.end) for word in found.words]
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert all(-1 <= word.weight <= 1 for word in found.words)
    covered = {place for span in spans for place in range(*span)}
    lost = [char for place, char in enumerate(text) if char in MIXED and char.isalnum() and place not in covered]
    assert not lost  # every letter, digit and ideograph reached the model, if only as unknown


def test_a_text_without_words_has_none(tone: Classifier) -> None:
    assert explain(tone, " \u3000\n").words == []
    assert explain(tone, "").words == []


@pytest.mark.parametrize("words", [10, 500, 5000])
def test_a_long_text_takes_bounded_work(strict: Classifier, words: int) -> None:
    text = "the bank says " * (words // 3) + "falls " + "today " * (words // 2)
    model = strict.model
    windows, spans = model.encode([text])[0].windows, model.spans(text)
    occlusion = occlude(text, windows, spans)
    assert len(occlusion.words) <= MOST_WORDS
    assert len(occlusion.windows) <= 3 * MOST_WORDS + MAX_WINDOWS
    assert max(map(len, occlusion.windows)) <= model.max_tokens
    if words == 500:  # more than are left out one by one, and all of them read
        start, end, weight = max(explain(strict, text, "bad").words, key=lambda word: word.weight)
        assert "falls" in text[start:end]
        assert weight > 0.5


def sums(rows: Floats) -> Floats:
    total: Floats = rows.sum(axis=0)
    return total


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 11), st.integers(1, 50))
@settings(deadline=None)
def test_weights_are_those_of_a_model_that_adds_words_up(count: int, width: int, shared: int, most: int) -> None:
    text = " ".join(chr(0x4E00 + number) for number in range(count))  # a token each, worth its number
    step = max(1, width - shared)
    cuts = [slice(first, first + width) for first in range(0, max(1, count - width + step), step)]
    ids, places = list(range(1, count + 1)), [(2 * number, 2 * number + 1) for number in range(count)]
    windows = [[0, *ids[cut], 0] for cut in cuts]
    spans: list[Sequence[Span]] = [[(0, 0), *places[cut], (0, 0)] for cut in cuts]
    occlusion = occlude(text, windows, spans, most)
    rows = np.array([[sum(window)] for window in occlusion.windows], np.float32)
    weights = weigh(occlusion, rows, 0, sums)
    worth = {place: sum(window.count(one) for window in windows) * one for place, one in zip(places, ids, strict=True)}
    assert len(weights) == min(count, most)
    for (start, end), weight in zip(occlusion.words, weights, strict=True):
        assert weight == pytest.approx(sum(worth[place] for place in places if start <= place[0] < end))


def test_classify_tells_the_words(words_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    app = typer.Typer()
    app.command()(classify)
    lines = "股价 rises 上涨\nthe bank falls\n"
    given = ["tone", "--release", str(words_release), "--runtime", REFERENCE["cpu"]]
    run = CliRunner().invoke(app, [*given, "--explain"], input=lines.encode())
    assert run.exit_code == 0, run.output
    for line, telling in zip(map(json.loads, run.stdout.splitlines()), ("rises", "falls"), strict=True):
        told = [word["text"] for word in line["words"]]
        assert [line["text"][word["start"] : word["end"]] for word in line["words"]] == told
        assert max(line["words"], key=lambda word: word["weight"])["text"] == telling
    plain = CliRunner().invoke(app, given, input=lines.encode())
    assert all("words" not in json.loads(line) for line in plain.stdout.splitlines())
