import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.entities import common_words, entities, names
from models.perturbations import (
    ASIDES,
    changes,
    contradicted,
    mistyped,
    other_negation,
    perturbed,
    recased,
    renamed,
    with_aside,
    with_noise,
)

NEWS = [
    "Prestige to raise Rs 216 cr from anchor investors",
    "Insurers in limbo over tagging of IDFC bonds",
    "Moscow Exchange restricts trading in Sistema shares on Monday",
    "some insurers and the exchange say nothing; to raise is to raise, in trading of shares",
]
COMMON = common_words(NEWS)


def rng() -> random.Random:
    return random.Random(3)


def found(text: str) -> list[str]:
    return [text[start:end] for start, end in entities(text, COMMON)]


def test_names_are_the_capitals_that_nobody_writes_small() -> None:
    assert found(NEWS[0]) == ["Prestige", "Rs"]
    assert found(NEWS[1]) == ["IDFC"]  # insurers are written small elsewhere
    assert found("Moscow Exchange restricts Moscow Metro's trading") == ["Moscow", "Moscow Metro"]
    assert found("INSURERS IN LIMBO OVER BONDS") == []
    assert names("IDFC and Idfc", COMMON) == {"idfc"}


def test_a_typing_error_changes_one_word_inside() -> None:
    text = "please transfer it to my account"
    seen = {mistyped(text, random.Random(seed)) for seed in range(200)}
    assert text not in seen
    for other in seen:
        pairs = list(zip(text.split(), other.split(), strict=True))
        assert all(one[0] == two[0] and abs(len(one) - len(two)) <= 1 for one, two in pairs)
        assert all(one == two for one, two in pairs if len(one) < 4)
    assert len(seen) > 20
    assert mistyped("is it on 1234?", rng()) == "is it on 1234?"


def test_casing_keeps_the_words() -> None:
    for seed in range(20):
        other = recased("Shares of ACME fell", random.Random(seed))
        assert other != "Shares of ACME fell"
        assert other.casefold() == "shares of acme fell"
    assert recased("1234", rng()) == "1234"


def test_names_are_replaced_alike_and_the_rest_stays() -> None:
    other = renamed("Sistema and IDFC: Sistema's shares fall", rng(), COMMON)
    words = other.replace(":", "").replace("'s", "").split()
    assert words[0] == words[3] != "Sistema"
    assert words[2].isupper() and words[2] != "IDFC"
    assert [words[1], *words[4:]] == ["and", "shares", "fall"]
    assert renamed("nobody is named here", rng(), COMMON) == "nobody is named here"


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("I can't log in", "I cannot log in"),
        ("Cannot log in, did not try", "Can't log in, didn't try"),
        ("It won't and it will not", "It will not and it won't"),
        ("a knot is not a can", "a knot isn't a can"),
        ("nothing here", "nothing here"),
    ],
)
def test_the_other_form_of_a_negation(text: str, other: str) -> None:
    assert other_negation(text, rng()) == other
    assert other_negation(other, rng()).lower() == text.lower()


def test_what_is_put_after_a_text_leaves_it_whole() -> None:
    for seed in range(40):
        assert with_noise("card lost", random.Random(seed)).startswith("card lost")
        assert len(with_noise("card lost", random.Random(seed))) > len("card lost")
    assert with_aside("card lost ", rng()) in {f"card lost. {aside}" for aside in ASIDES}
    assert with_aside("lost?", rng()).startswith("lost? ")


def test_a_contradiction_keeps_names() -> None:
    assert contradicted("Profit rose") == "It is not true that profit rose"
    assert contradicted("IDFC fell") == "It is not true that IDFC fell"
    assert contradicted("X") == "It is not true that X"


@settings(deadline=None)
@given(st.text(min_size=1, max_size=60), st.integers(0, 9))
def test_any_text_can_be_changed_and_the_same_way_again(text: str, seed: int) -> None:
    for name, change in changes([text]).items():
        (first,) = perturbed([text], name, change, seed)
        assert perturbed(["another", text], name, change, seed)[1] == first
        assert first.strip() or not text.strip()
    assert contradicted(text).endswith(text[1:])


def test_another_process_changes_them_alike() -> None:
    code = (
        "from models.perturbations import changes, perturbed\n"
        f"texts = {NEWS!r}\n"
        "print([perturbed(texts, name, change, 5) for name, change in changes(texts).items()])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [perturbed(NEWS, name, change, 5) for name, change in changes(NEWS).items()]
    assert done.stdout.strip() == repr(here)
    assert [perturbed(NEWS, name, change, 6) for name, change in changes(NEWS).items()] != here
