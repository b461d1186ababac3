"""Words are exact spans of characters in any script, and never cut a token in two."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from models.words import Span, segments, words

SCRIPTS = (
    "Profit 5% -3.2 $12m don't naïve ",
    "央行加息股价下跌、。「」",
    "ひらがなカタカナー",
    "주가가 하락했다 ",
    "ราคาหุ้นตกต่ำ",
    "बैंक की कमाई ",
    "سهم البنك ينخفض ",
    "מניה יורדת ",
    "Ἀθήνα Москва ",
    "👍🏽👨‍👩‍👧🇩🇪🇯🇵❤️",
    "e\u0301a\u0308\u200d\u200b\ufeff\u00ad\x00\x85\u3000\n\t",
)
texts = st.text(st.sampled_from("".join(SCRIPTS)) | st.characters(codec="utf-8"), max_size=60)


def told(text: str) -> list[str]:
    return [text[start:end] for start, end in segments(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Profit-warning: Q3 falls!!!", ["Profit-warning", ":", "Q3", "falls", "!!!"]),
        ("don't pay 1,200.50 or -5%.", ["don't", "pay", "1,200.50", "or", "-5%", "."]),
        ("($12m) U.S. AT&T", ["(", "$12m", ")", "U.S", ".", "AT&T"]),
        ("http://bit.ly/x", ["http", ":", "//", "bit.ly", "/", "x"]),
        ("Novabank股价下跌5%。", ["Novabank", "股", "价", "下", "跌", "5%", "。"]),
        ("カタカナ", ["カ", "タ", "カ", "ナ"]),
        ("주가가 하락했다", ["주가가", "하락했다"]),
        ("น้ำท่วม", ["น้", "ำ", "ท่", "ว", "ม"]),
        ("बैंक की", ["बैंक", "की"]),
        ("cafe\u0301 au", ["cafe\u0301", "au"]),
        ("up👍🏽👨‍👩‍👧", ["up", "👍🏽", "👨‍👩‍👧"]),
        ("🇩🇪🇯🇵", ["🇩🇪", "🇯🇵"]),
        (" \u3000\n", []),
    ],
)
def test_what_a_word_is(text: str, expected: list[str]) -> None:
    assert told(text) == expected


@given(texts)
@settings(deadline=None)
def test_segments_hold_everything_but_white_space(text: str) -> None:
    found = segments(text)
    assert all(start < end for start, end in found)
    assert all(end <= start for (_, end), (start, _) in pairwise(found))
    held = "".join(text[start:end] for start, end in found)
    assert [char for char in held if not char.isspace()] == [char for char in text if not char.isspace()]


def check(text: str, tokens: list[Span]) -> None:
    """What holds for the words of any text under any tokens."""
    found = words(text, tokens)
    assert all(0 <= start < end <= len(text) for start, end in found)
    assert all(end <= start for (_, end), (start, _) in pairwise(found))
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in found)
    for start, end in tokens:
        read = {place for place in range(start, end) if not text[place].isspace()}
        if read:
            homes = [span for span in found if read & set(range(*span))]
            assert len(homes) == 1
            assert read <= set(range(*homes[0]))
    for start, end in found:
        assert any(first < end and start < last for first, last in tokens)


@given(texts, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_no_token_is_cut_and_none_is_missing(text: str, chance: random.Random) -> None:
    edges = sorted({0, len(text), *(chance.randint(0, len(text)) for _ in range(len(text) // 2))})
    tokens = [span for span in pairwise(edges) if chance.random() < 0.8]
    check(text, [(0, 0), *tokens, *tokens[:3]])


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SCRIPTS, trainer)
    return tokenizer


def sentence_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(SCRIPTS, trainer)
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, sentence_pieces])
def test_the_tokenisers_of_other_encoders(make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()

    @given(texts)
    @settings(deadline=None, max_examples=60)
    def holds(text: str) -> None:
        check(text, tokenizer.encode(text).offsets)

    holds()


def test_a_long_text_takes_no_time_to_speak_of() -> None:
    for text in ("🇩" * 60_000, "e" + "\u0301" * 60_000, "." * 60_000, "股" * 60_000, "-1" * 30_000):
        assert words(text, [(0, 1), (len(text) - 1, len(text))])  # quadratic work would take minutes
