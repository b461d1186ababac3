"""The words of a text, in any script, as spans of characters that never cut a token of the model in two.

A word is what a person would mark: `profit-warning`, `1,200.50`, `-5%`, `don't` are one each, marks at its edges are
another. In scripts that are written without spaces (Chinese, Japanese, Thai and their kin) every character is one, as
nothing in the text says more. An emoji is one with all that modifies it.
"""

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence

Span = tuple[int, int]

INNER = frozenset(".,'\u2019-_@&")  # between two letters or digits they are part of the word
SIGNS = frozenset("+-\u2212$€£¥₹#@")  # before a word they belong to it
AFTER = frozenset("%‰°")  # and these behind one
JOINER = "\u200d"
SKIN_TONES = range(0x1F3FB, 0x1F400)
FLAGS = range(0x1F1E6, 0x1F200)
UNSPACED = (  # by the first word of a character's name: https://www.unicode.org/reports/tr14/, classes ID and SA
    *("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH", "BOPOMOFO", "YI", "NUSHU", "TANGUT"),
    *("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "TAI", "NEW", "JAVANESE", "BALINESE"),
)


def words(text: str, tokens: Iterable[Span]) -> list[Span]:
    """The words that the tokens read, in their order: apart from each other, none of them empty or white space.

    `tokens` are the model's, as spans of the text, in any order. A word ends where a token does: what one token reads
    as a whole stays whole, and what no token reads is in no word.
    """
    spans = (trimmed(text, token) for token in set(tokens))
    read = sorted(span for span in spans if span[0] < span[1])
    reach = max((end for _, end in read), default=0)
    while reach < len(text) and _modifies(text[reach]):
        reach += 1
    starts = [start for start, _ in read]  # every token begins in a word, and lies in it whole
    return [(start, end) for start, end in _joined(segments(text[:reach]), read) if _any_in(starts, start, end)]


def segments(text: str) -> list[Span]:
    """The words of a text by its characters alone."""
    found: list[Span] = []
    start = 0
    for place in range(1, len(text) + 1):
        if place == len(text) or not _together(text, start, place):
            if not text[start:place].isspace():
                found.append((start, place))
            start = place
    return found


def _together(text: str, start: int, place: int) -> bool:
    """Whether the characters before and at a place are of one word, which begins at `start`."""
    before, at = text[place - 1], text[place]
    if _modifies(at) or before == JOINER:
        return not before.isspace()
    if before.isspace() or at.isspace():
        return before.isspace() and at.isspace()
    if ord(before) in FLAGS and ord(at) in FLAGS:
        return place - start == 1  # two are one flag
    if _letter(text, place - 1):
        return _letter(text, place) or at in AFTER or (at in INNER and _letter(text, place + 1))
    if _letter(text, place):
        return (before in INNER and _letter(text, place - 2)) or (before in SIGNS and not _letter(text, place - 2))
    return before == at and unicodedata.category(at)[0] == "P"


def _letter(text: str, place: int) -> bool:
    """Whether a letter or digit of a script with spaces is there; what modifies one counts as it does."""
    while 0 < place < len(text) and _modifies(text[place]):
        place -= 1
    return 0 <= place < len(text) and text[place].isalnum() and not _unspaced(text[place])


def _unspaced(char: str) -> bool:
    return char > "\u0e00" and unicodedata.name(char, "").split(" ", 1)[0].split("-", 1)[0] in UNSPACED


def _modifies(char: str) -> bool:
    return char == JOINER or unicodedata.category(char)[0] == "M" or ord(char) in SKIN_TONES


def _any_in(places: Sequence[int], start: int, end: int) -> bool:
    """Whether one of the sorted places is in [start, end)."""
    found = bisect_left(places, start)
    return found < len(places) and places[found] < end


def trimmed(text: str, token: Span) -> Span:
    """A token's span without white space at its ends, which some tokenisers count to the word that follows."""
    start, end = token
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _joined(found: Sequence[Span], tokens: Sequence[Span]) -> list[Span]:
    """The spans, those joined that one token reads together; both are sorted."""
    joined: list[Span] = []
    reach, token = 0, 0  # how far the tokens that begin before the span at hand reach
    for start, end in found:
        while token < len(tokens) and tokens[token][0] < start:
            reach, token = max(reach, tokens[token][1]), token + 1
        if joined and reach > start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
