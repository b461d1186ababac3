import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.datasets import normalised
from models.near_duplicates import GRAM_CHARS, bands, closest, hashed_grams, jaccard, near_duplicates

WORDS = (
    "account balance card transfer money bank fee payment abroad pending declined loan interest rate statement branch"
    " mobile password limit refund salary cheque deposit currency exchange invoice mortgage savings deadline contract"
).split()


def grams(text: str) -> set[str]:
    plain = normalised(text)
    return {plain[start : start + GRAM_CHARS] for start in range(max(1, len(plain) - GRAM_CHARS + 1))}


def similarity(one: str, other: str) -> float:
    return len(grams(one) & grams(other)) / len(grams(one) | grams(other))


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40), st.text(max_size=40))
def test_hashes_stand_for_the_grams_of_any_script(one: str, other: str) -> None:
    assert len(hashed_grams(one)) == len(grams(one))
    assert jaccard(hashed_grams(one), hashed_grams(other)) == pytest.approx(similarity(one, other))
    assert jaccard(hashed_grams(one), hashed_grams(f"  {one.replace(' ', '  ')}")) == 1


def test_planted_near_duplicates_are_found_and_nothing_else() -> None:
    """200 texts of 20 words, and a copy of each with one word replaced: compared with the truth, pair by pair."""
    chooser = random.Random(5)
    texts = [" ".join(chooser.choices(WORDS, k=20)) for _ in range(200)]
    for text in texts[:200]:
        words = text.split()
        words[chooser.randrange(20)] = chooser.choice(WORDS)
        texts.append(" ".join(words))
    truth = {(row, row + 200) for row in range(200) if similarity(texts[row], texts[row + 200]) >= 0.8}
    found = near_duplicates(texts, 0.8)
    assert len(truth) > 150
    assert {(pair.first, pair.second) for pair in found} <= truth
    assert len(found) >= 0.99 * len(truth)
    for pair in found[:20]:
        assert pair.similarity == pytest.approx(similarity(texts[pair.first], texts[pair.second]))


def test_identical_texts_short_texts_and_other_scripts() -> None:
    texts = ["hi", "账户余额是多少请告诉我。", "HI ", "账户余额是多少请告诉我", "", "ho"]
    assert [(pair.first, pair.second) for pair in near_duplicates(texts, 0.8)] == [(0, 2), (1, 3)]


def test_the_closest_among_others_and_never_one_of_the_texts_themselves() -> None:
    long = "the card that you sent me was declined abroad again"
    among = ["nothing like it at all", long + " today", long, long.upper()]
    pairs = closest([long, long, "something else entirely", "NOTHING like it at  all"], among, 0.8)
    assert [pair and (pair.first, pair.second) for pair in pairs] == [(2, 0), (2, 1), None, (0, 3)]
    assert closest([long], [], 0.8) == [None]


@pytest.mark.parametrize("alike", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_find_almost_all_that_is_alike_enough(alike: float) -> None:
    count, rows = bands(alike)
    assert count * rows <= 256
    assert 1 - (1 - alike**rows) ** count >= 0.99


@pytest.mark.parametrize("alike", [0, -1, 1.1])
def test_a_similarity_is_a_share(alike: float) -> None:
    with pytest.raises(ValueError, match="alike must lie above 0"):
        near_duplicates(["a"], alike)
