import pytest

from models.slices import by_entities, by_length, by_value, slices
from tests.models.judged import judged_of


def test_slices_by_hand() -> None:
    judged = judged_of(["a", "a", "b", "b"], [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    found = slices(judged, {"length": ["1 to 5", "11 to 20", "1 to 5", "11 to 20"], "source": ["x"] * 4})
    assert [(one.by, one.value, one.n) for one in found] == [
        ("length", "1 to 5", 2), ("length", "11 to 20", 2), ("source", "x", 4),
    ]  # fmt: skip
    short, long, everything = found
    assert (short.accuracy, long.accuracy, everything.accuracy) == (1.0, 0.5, 0.75)
    assert short.ece == pytest.approx((0.1 + 0.3) / 2)
    assert (short.macro_f1, long.macro_f1) == pytest.approx((1.0, (0 + 2 / 3) / 2))


def test_lengths_are_counted_in_words() -> None:
    texts = ["", "one two", "x " * 6, "x " * 160, "x " * 161]
    assert by_length(texts) == [
        "0 to 5 words", "0 to 5 words", "6 to 10 words", "81 to 160 words", "161 words and more",
    ]  # fmt: skip


def test_rare_values_are_one_slice() -> None:
    values = [*"ab" * 5, *map(str, range(40))]
    found = by_value(values)
    assert found[:10] == [*"ab" * 5]
    assert len(set(found)) == 21
    assert found.count("(others)") == 22


def test_names_seen_and_not_seen() -> None:
    train = ["shares of Acme and Borealis fell"]
    texts = ["Acme rose", "Acme bought Corvus", "shares fell", "BOREALIS and Acme"]
    assert by_entities(texts, train) == [
        "all names seen in training", "a name not seen in training", "no name", "all names seen in training",
    ]  # fmt: skip
