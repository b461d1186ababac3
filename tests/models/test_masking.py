from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from models.errors import BadBase
from models.masking import NOT_MASKED, Masking

PAD, UNK, CLS, SEP, MASK, FIRST = 0, 1, 2, 3, 4, 5  # of the tiny tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_base / "tokenizer.json"))


rows = st.lists(st.lists(st.integers(0, 60), min_size=3, max_size=12), min_size=1, max_size=6)


@given(rows, st.floats(0.01, 0.99), st.integers(0, 1000))
@settings(deadline=None)
def test_only_ordinary_tokens_are_hidden_and_one_of_each_text_at_least(
    tokenizer: Tokenizer, texts: list[list[int]], rate: float, seed: int
) -> None:
    width = max(map(len, texts))
    ids = np.array([text + [PAD] * (width - len(text)) for text in texts], np.int64)
    mask = np.array([[1] * len(text) + [0] * (width - len(text)) for text in texts], np.int64)
    masking = Masking(tokenizer, rate)
    seen, targets = masking(ids, mask, np.random.default_rng(seed))
    chosen = targets != NOT_MASKED
    assert (targets[chosen] == ids[chosen]).all()
    assert (seen[~chosen] == ids[~chosen]).all()
    assert (ids[chosen] >= FIRST).all() and mask[chosen].all()
    for text, row in zip(texts, chosen, strict=True):
        assert row.any() == (masking.maskable(text) > 0)
    assert not np.isin(seen[chosen], (PAD, UNK, CLS, SEP)).any()
    again = masking(ids, mask, np.random.default_rng(seed))
    assert (again[0] == seen).all() and (again[1] == targets).all()


def test_shares_are_those_of_the_paper(tokenizer: Tokenizer) -> None:
    ids = np.full((400, 100), FIRST + 7, np.int64)
    seen, targets = Masking(tokenizer, 0.15)(ids, np.ones_like(ids), np.random.default_rng(1))
    chosen = targets != NOT_MASKED
    assert chosen.mean() == pytest.approx(0.15, abs=0.01)
    assert (seen[chosen] == MASK).mean() == pytest.approx(0.8, abs=0.02)
    assert (seen[chosen] == ids[chosen]).mean() == pytest.approx(0.1, abs=0.02)


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    with pytest.raises(BadBase, match=r"no mask token \(\[MASK\] or <mask>\)"):
        Masking(Tokenizer(WordLevel({"a": 0}, unk_token="a")), 0.15)
