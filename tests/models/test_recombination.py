from hypothesis import given, settings
from hypothesis import strategies as st

from models.datasets import normalised
from models.recombination import recombined

NEWS = [
    f"{company} said on {day} that its {what} {moved} to {amount} million euros in the {quarter} quarter"
    for company, amount in (("Acme", 12), ("Birch Oy", 40), ("Cedar plc", 7), ("Delta AG", 110))
    for day, quarter in (("Monday", "first"), ("Friday", "third"))
    for what, moved in (("profit", "rose"), ("loss", "widened"), ("turnover", "fell"))
]


def test_as_many_as_asked_for_each_new_and_each_once() -> None:
    found = recombined(NEWS, 300, 7, leave_out=["Acme said on Monday that its loss rose"])
    assert len(found) == 300
    assert len({normalised(text) for text in found} | {normalised(text) for text in NEWS}) == 300 + len(NEWS)
    assert recombined(NEWS, 300, 7) == found
    assert recombined(NEWS, 300, 8) != found


def test_what_is_to_be_left_out_is_not_made_again() -> None:
    first = recombined(NEWS, 100, 7)
    assert not {normalised(text) for text in recombined(NEWS, 100, 7, leave_out=first)} & {*map(normalised, first)}


def test_a_text_goes_on_as_another_from_what_both_hold() -> None:
    found = recombined(["the cat sat on a mat", "a dog lay on a rug today"], 2, 7)
    assert "the cat sat on a rug today" in found or "a dog lay on a mat" in found


def test_words_are_exchanged_for_those_of_the_same_surroundings_and_spacing_stays() -> None:
    found = recombined(["Send  money now!", "then send Help now"], 40, 7)
    assert {"Send  Help now!", "then send money now"} <= set(found)


def test_scripts_without_spaces_are_recombined_by_their_characters() -> None:
    texts = ["今日は天気がいいです", "今日は雨がひどいです", "明日は天気がわるいです"]
    found = recombined(texts, 20, 7)
    assert len(found) == 20
    assert set("".join(found)) <= set("".join(texts))


def test_no_text_gives_none_and_one_that_cannot_be_changed_neither() -> None:
    assert recombined([], 5, 7) == []
    assert recombined(["hello"], 5, 7) == []
    assert recombined(["", "   "], 5, 7) == []


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(st.sampled_from("ab 中,."), max_size=20), max_size=6), st.integers(0, 10))
def test_any_texts_can_be_recombined(texts: list[str], count: int) -> None:
    found = recombined(texts, count, 7)
    same = [normalised(text) for text in found]
    assert len(found) <= count
    assert len(set(same)) == len(same)
    assert not set(same) & {normalised(text) for text in texts}
    assert "" not in same
