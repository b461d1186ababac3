import json
import re
from pathlib import Path

import numpy as np
import pytest

from models.classifier import Classifier
from models.errors import IntegrityError
from models.evaluation import judge
from models.learning.drift import QUANTITIES, Tally, distance, shifts
from models.learning.profiles import PROFILE, Profile, profile_of, read_profiles, unknown_shares, write_profiles
from models.releases import verify
from models.tasks import Task
from tests.models.tiny import ignore, make_examples


@pytest.fixture(scope="module")
def classifier(tiny_release: Path, tiny_task: Task) -> Classifier:
    return Classifier.load(tiny_release, tiny_task, device="cpu", runtime="onnxruntime-fp32")


@pytest.fixture(scope="module")
def profile(tiny_release: Path, classifier: Classifier) -> Profile:
    """Of more texts than the sixteen that the tiny release was graded on."""
    examples = make_examples(400, start=300)
    windows = [one.windows for one in classifier.model.encode([one.text for one in examples])]
    made = read_profiles(tiny_release)["tone"]
    return profile_of(judge(classifier, examples), windows, np.flatnonzero(made.known), made.vectors)


def _seen(classifier: Classifier, profile: Profile, texts: list[str]) -> Tally:
    probabilities = classifier.classify(texts)
    windows = [one.windows for one in classifier.model.encode(texts)]
    return profile.tally(probabilities.argmax(axis=1), probabilities.max(axis=1), windows)


def _drifted(profile: Profile, tally: Tally) -> set[str]:
    return {quantity for quantity, shift in shifts(profile.bins, tally).items() if shift.drifted}


def test_a_release_carries_the_profile_of_its_tasks(tiny_release: Path, joint_release: Path) -> None:
    assert PROFILE in verify(tiny_release).files
    assert set(read_profiles(joint_release)) == {"tone", "money"}
    made = read_profiles(tiny_release)["tone"]
    assert made.n == sum(made.bins["label"].counts) == 16
    assert made.vectors is not None and len(made.vectors) == 16
    assert 0 < made.known.sum() < 160


def test_texts_of_the_same_kind_are_no_drift(classifier: Classifier, profile: Profile) -> None:
    texts = [one.text for one in make_examples(400, start=600)]
    assert _drifted(profile, _seen(classifier, profile, texts)) == set()


def test_the_quantity_that_moves_is_the_one_that_drifts(classifier: Classifier, profile: Profile) -> None:
    texts = [one.text for one in make_examples(400, start=600)]
    good = [one.text for one in make_examples(400, start=600) if one.label == "good"]
    assert "label" in _drifted(profile, _seen(classifier, profile, good))
    assert "length" in _drifted(profile, _seen(classifier, profile, [f"{text} {text}" for text in texts]))
    assert "unknown" in _drifted(profile, _seen(classifier, profile, [f"xq zw {text}" for text in texts]))


def test_predictions_without_their_texts_count_too(profile: Profile) -> None:
    tally = profile.tally([0, 1, 1], [0.9, 0.8, 0.7])
    assert set(tally.counts) == {"label", "confidence"}
    assert tally.expected.n == 3
    assert tally.expected.correct == pytest.approx(2.4)
    both = tally + profile.tally([0], [0.9], [[[1, 2]]])
    assert set(both.counts) == set(QUANTITIES)


def test_the_accuracy_to_expect_stands_beside_the_one_that_was(profile: Profile) -> None:
    assert 0.5 < profile.expected_accuracy <= 1
    assert 0.5 < profile.accuracy <= 1
    assert profile.n == 400


def test_vectors_are_those_the_release_gives_today(
    tiny_release: Path, classifier: Classifier, profile: Profile
) -> None:
    from models.embeddings import text_vectors

    assert profile.vectors is not None
    now = text_vectors(tiny_release, classifier, [one.text for one in make_examples(60, start=1000)], ignore)
    assert now.shape[1] == profile.vectors.shape[1]
    assert distance(profile.vectors, now).value < distance(profile.vectors, -now).value


def test_unknown_are_the_tokens_that_no_training_text_has() -> None:
    known = np.array([True, False, True])
    assert unknown_shares([[[0, 2]], [[0, 1]], [[1, 99], [0, 0]]], known).tolist() == [0.0, 0.5, 0.5]
    assert unknown_shares([], known).tolist() == []


def test_what_is_read_is_what_was_written(profile: Profile, tmp_path: Path) -> None:
    write_profiles(tmp_path, {"tone": profile})
    again = read_profiles(tmp_path)["tone"]
    assert (again.n, again.accuracy, again.bins) == (profile.n, profile.accuracy, dict(profile.bins))
    assert again.known.tolist() == profile.known.tolist()
    assert profile.vectors is not None and again.vectors is not None
    assert np.array_equal(again.vectors, profile.vectors)


def test_an_older_release_has_no_profile(tmp_path: Path) -> None:
    assert read_profiles(tmp_path) == {}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("known", "%%", "known: is not base64"),
        ("known", "AA==", r"known: 1 bytes for \d+ token ids"),
        ("vectors", "AAAA", r"vectors: 3 bytes are no rows of \d+ numbers"),
        ("accuracy", 1.5, "less than or equal to 1"),
        ("bins", {"label": {"edges": [1.0], "counts": [1, 1]}}, "at least 4"),
    ],
)
def test_a_damaged_profile_is_refused(
    profile: Profile, tmp_path: Path, field: str, value: object, message: str
) -> None:
    write_profiles(tmp_path, {"tone": profile})
    content = json.loads((tmp_path / PROFILE).read_text(encoding="utf-8"))
    content["tasks"]["tone"][field] = value
    (tmp_path / PROFILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(IntegrityError, match=f"{re.escape(PROFILE)}: .*{message}"):
        read_profiles(tmp_path)


def test_bins_must_fit_their_edges(profile: Profile, tmp_path: Path) -> None:
    write_profiles(tmp_path, {"tone": profile})
    content = json.loads((tmp_path / PROFILE).read_text(encoding="utf-8"))
    content["tasks"]["tone"]["bins"]["label"]["counts"].append(1)
    (tmp_path / PROFILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(IntegrityError, match="one count more than edges"):
        read_profiles(tmp_path)
