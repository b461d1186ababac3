from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from models.classifier import Model
from models.runtimes import REFERENCE
from models.windows import MAX_WINDOWS, Rule, merge, merge_all, overlap_tokens, windows_of
from tests.models.tiny import BAD, FILLER, GOOD

RULES: tuple[Rule, ...] = ("mean", "max")
WINDOWS = st.shared(st.integers(1, 6), key="windows")
ROWS = arrays.arrays(np.float32, st.tuples(WINDOWS, st.just(4)), elements=st.floats(0.125, 1, width=32)).map(
    lambda rows: (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
)
LENGTHS = WINDOWS.flatmap(lambda count: st.lists(st.integers(2, 96), min_size=count, max_size=count))
ALERTS = st.lists(st.integers(0, 3), unique=True)
WORDS = st.sampled_from([*GOOD, *BAD, *FILLER, "unheard-of", "銀行", "は", "損失を計上した。", "🙂", "naïve", "3.5%"])


@pytest.fixture(scope="module")
def model(tiny_release: Path) -> Model:
    return Model.load(tiny_release, "cpu", REFERENCE["cpu"], threads=1)


@pytest.fixture(scope="module")
def whole(tiny_release: Path) -> Tokenizer:
    """The release's tokenizer, cutting nothing."""
    tokenizer = Tokenizer.from_file(str(tiny_release / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@given(words=st.lists(WORDS, max_size=300))
def test_windows_hold_every_token_in_order(model: Model, whole: Tokenizer, words: list[str]) -> None:
    text = " ".join(words)
    (encoded,) = model.encode([text])
    assert 1 <= len(encoded.windows) <= MAX_WINDOWS
    for window in encoded.windows:
        assert 2 <= len(window) <= model.max_tokens
        assert (window[0], window[-1]) == (2, 3)  # [CLS] and [SEP] around each
    assert all(len(window) == model.max_tokens for window in encoded.windows[:-1])
    first, *further = (window[1:-1] for window in encoded.windows)
    shared = overlap_tokens(model.max_tokens)
    read = [*first, *(token for window in further for token in window[shared:])]
    content = whole.encode(text).ids[1:-1]
    assert read == content[: len(read)]
    assert encoded.cut == (len(read) < len(content))
    assert not encoded.cut or len(encoded.windows) == MAX_WINDOWS


def test_a_text_without_spaces_is_read_to_its_end(model: Model, whole: Tokenizer) -> None:
    text = "当行は本日、第三四半期の損失を計上したと発表した。" * 5
    (encoded,) = model.encode([text])
    assert not encoded.cut
    assert len(encoded.windows) > 1
    assert encoded.windows[-1][-5:] == whole.encode(text).ids[-5:]


def test_only_what_no_window_holds_is_cut(model: Model) -> None:
    reach = 22 + (MAX_WINDOWS - 1) * (22 - overlap_tokens(24))  # [CLS] and [SEP] take two of the 24
    fits, over = model.encode(["profit " * reach, "profit " * (reach + 1)])
    assert (len(fits.windows), fits.cut) == (MAX_WINDOWS, False)
    assert (len(over.windows), over.cut) == (MAX_WINDOWS, True)
    assert over.windows == fits.windows


@given(rows=ROWS, lengths=LENGTHS, alerts=ALERTS, rule=st.sampled_from(RULES))
def test_a_merged_row_is_a_distribution_within_its_windows(
    rows: np.ndarray, lengths: list[int], alerts: list[int], rule: Rule
) -> None:
    row = merge(rows, lengths, rule, alerts)
    assert row.shape == (4,)
    assert row.dtype == np.float32
    assert row.sum() == pytest.approx(1, abs=1e-5)
    assert (row >= rows.min(axis=0) - 1e-6).all()
    assert (row <= rows.max(axis=0) + 1e-6).all()


@given(rows=ROWS, lengths=LENGTHS, alerts=ALERTS.filter(bool))
def test_max_is_the_row_of_the_most_alarming_window(rows: np.ndarray, lengths: list[int], alerts: list[int]) -> None:
    row = merge(rows, lengths, "max", alerts)
    assert row[alerts].sum() == rows[:, alerts].sum(axis=1).max()
    assert any((row == one).all() for one in rows)


@given(rows=ROWS, alerts=ALERTS, rule=st.sampled_from(RULES))
def test_one_window_is_the_text(rows: np.ndarray, alerts: list[int], rule: Rule) -> None:
    np.testing.assert_array_equal(merge(rows[:1], [7], rule, alerts), rows[0])


def test_merging_by_hand() -> None:
    rows = np.array([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.4, 0.6, 0.0]], np.float32)
    np.testing.assert_allclose(merge(rows, [96, 96, 48], "mean", []), [0.48, 0.28, 0.24], rtol=1e-6)
    np.testing.assert_array_equal(merge(rows, [96, 96, 48], "max", [1, 2]), rows[1])  # 0.8 beats 0.6
    np.testing.assert_array_equal(merge(rows, [96, 96, 48], "max", [1]), rows[2])
    np.testing.assert_allclose(merge(rows, [96, 96, 48], "max", []), [0.48, 0.28, 0.24], rtol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(WORDS, max_size=60).map(" ".join), max_size=5))
def test_training_reads_the_windows_that_are_served(model: Model, tiny_release: Path, texts: list[str]) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_release / "tokenizer.json"))
    tokenizer.enable_padding()
    windows = windows_of(tokenizer, [*texts, "\ud83d"], model.max_tokens)
    served = [one.windows for one in model.encode([*texts, "\ud83d"])]
    assert [windows.ids[span.start : span.stop] for span in windows.spans] == served
    assert windows.texts == [text for text, own in enumerate(served) for _ in own]


def test_rows_of_windows_become_rows_of_texts() -> None:
    tokenizer = Tokenizer.from_str(Tokenizer(WordLevel({"a": 0}, unk_token="a")).to_str())
    tokenizer.pre_tokenizer = WhitespaceSplit()
    windows = windows_of(tokenizer, ["a", " ".join("a" * 10)], 8)
    assert windows.ends == [1, 3]
    rows = np.array([[1, 0], [0.5, 0.5], [0.2, 0.8]], np.float32)
    merged = merge_all(rows, windows, "mean", [])
    assert merged[0].tolist() == [1, 0]
    assert merged[1].tolist() == merge(rows[1:], [8, 4], "mean", []).tolist()
