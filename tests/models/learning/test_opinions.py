from __future__ import annotations

from models.learning.opinions import text_key


def test_a_text_has_the_same_key_however_it_is_spaced_and_capitalised() -> None:
    assert text_key("Your parcel  is\nheld") == text_key("your parcel is held") != text_key("your parcel was held")
    assert text_key("x").startswith("text:") and len(text_key("x")) == 5 + 64
