import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.perturbations import ASIDES
from models.perturbations import ENDINGS as GRADED_BY
from models.variation import ENDINGS, varied

TEXTS = [f"where is the parcel number {number} that was sent" for number in range(400)]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_about_so_many_texts_are_changed_and_each_keeps_its_place(share: float) -> None:
    found = varied(TEXTS, share, "seed")
    changed = [one != other for one, other in zip(TEXTS, found, strict=True)]
    assert sum(changed) == pytest.approx(share * len(TEXTS), abs=30 if 0 < share < 1 else 0)
    for number, text in enumerate(found):
        assert text.startswith("w")
        assert f" {number} " in text  # typing errors are in letters, and what is added comes after


def test_every_epoch_reads_others_and_the_same_epoch_the_same() -> None:
    assert varied(TEXTS, 0.5, "7/1") == varied(TEXTS, 0.5, "7/1")
    both = [one == other for one, other in zip(varied(TEXTS, 1.0, "7/1"), varied(TEXTS, 1.0, "7/2"), strict=True)]
    assert sum(both) < len(TEXTS) / 20


def test_nothing_that_robustness_is_graded_by_is_learned_by_heart() -> None:
    assert not set(ENDINGS) & {*GRADED_BY, *(f" {aside}" for aside in ASIDES)}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=40), max_size=5), st.floats(0, 1))
def test_any_text_can_be_varied(texts: list[str], share: float) -> None:
    found = varied(texts, share, "any")
    assert len(found) == len(texts)
    assert varied(texts, share, "any") == found
