from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.classifier import Classifier
from models.datasets import Example
from models.errors import BadDataset
from models.learning.curation import Curated
from models.learning.rehearsal import MOST_LIFT, NEW_SHARE, equal_shares, lesson_of, rehearsed, weights_of
from models.tasks import Task
from tests.models.tiny import ignore, make_examples


def curated(text: str, label: str, weight: float = 1.0) -> Curated:
    return Curated(f"chat/0/{text}", text, label, weight, 0.0, "chat", ("ann",))


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 50), max_size=8), st.integers(0, 200))
def test_labels_share_equally_and_what_rare_ones_leave_over_goes_to_the_others(
    counts: dict[str, int], most: int
) -> None:
    shares = equal_shares(counts, most)
    assert shares.keys() == counts.keys()
    assert sum(shares.values()) == min(most, sum(counts.values()))
    highest = max(shares.values(), default=0)
    assert all(shares[label] == counts[label] or shares[label] >= highest - 1 for label in counts)


def test_a_draw_keeps_the_rare_whole_repeats_itself_and_hardly_changes_with_the_data() -> None:
    rare = [Example(f"rare {row}", "rare") for row in range(5)]
    examples = [*make_examples(100), *rare]
    drawn = rehearsed(examples, 45, seed=7)
    assert len(drawn) == 45
    assert drawn == rehearsed(examples, 45, seed=7)
    assert drawn != rehearsed(examples, 45, seed=8)
    assert set(rare) < set(drawn)
    assert drawn == [example for example in examples if example in set(drawn)]  # in their order
    assert len(set(drawn) ^ set(rehearsed(examples[1:], 45, seed=7))) <= 2
    assert rehearsed(examples, 1000, seed=7) == examples
    assert len(rehearsed(examples, 2, seed=7)) == 2, "fewer than there are labels"


@given(st.integers(1, 5000), st.lists(st.floats(0.01, 1), max_size=300))
def test_new_texts_have_their_share_of_the_say_but_none_counts_for_a_crowd(old: int, new: list[float]) -> None:
    weights = weights_of(old, new)
    assert (weights[:old] == 1).all()
    its = weights[old:]
    assert (its <= MOST_LIFT * np.array(new, np.float32) + 1e-5).all()
    assert (its >= np.array(new, np.float32) - 1e-5).all()
    if new:
        lift = its[0] / new[0]
        np.testing.assert_allclose(its, lift * np.array(new), rtol=1e-4)
        share = its.sum() / weights.sum()
        assert share == pytest.approx(NEW_SHARE, rel=1e-3) or lift == pytest.approx(MOST_LIFT) or share >= NEW_SHARE


def test_old_texts_carry_what_the_champion_thinks_and_new_ones_only_their_label(
    tiny_task: Task, tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMGAUGE_HOME", str(tmp_path))
    old = make_examples(40)
    new = [curated("YEN yen  1", "money", 0.5), curated(old[3].text.upper(), old[2].label)]
    lesson = lesson_of(tiny_task, tiny_release, old, new, "data", ignore)
    assert [one.text for one in lesson.examples] == [one.text for one in old if one != old[3]] + [r.text for r in new]
    assert lesson.soft_targets is not None
    assert lesson.weights is not None
    known = Classifier.load(tiny_release, tiny_task, "cpu").classify([one.text for one in lesson.examples[:39]])
    np.testing.assert_allclose(lesson.soft_targets[:39, :2], known, atol=1e-5)  # bad, good
    assert not lesson.soft_targets[:39, 2].any()  # money: of an old text it is not
    assert not lesson.soft_targets[39:].any()
    assert lesson_of(tiny_task, tiny_release, old, new, "data", ignore, asks_champion=False).soft_targets is None
    assert lesson.weights[40] == pytest.approx(2 * lesson.weights[39])


def test_a_label_without_examples_would_be_forgotten_and_is_refused(tiny_task: Task, tiny_release: Path) -> None:
    old = [example for example in make_examples(40) if example.label == "good"]
    with pytest.raises(BadDataset, match="the champion knows bad, of which there is no example"):
        lesson_of(tiny_task, tiny_release, old, [curated("yen", "money")], "data", ignore)
