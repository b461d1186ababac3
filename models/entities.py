"""Names in a text, found without a model: words written with a capital that nobody writes without one.

What counts as a common word is learned from the texts at hand, so that the first word of a sentence is a name only when
it is nowhere written small. Languages without capitals have no names here; neither do texts written in capitals alone.
"""

import re
from collections.abc import Iterable, Set

WORD = re.compile(r"\w[\w&.'\u2019-]*\w|\w")
CALENDAR = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august"
    " september october november december".split()
)
SHOUTED = 0.7  # of a text's words: so many capitals say nothing about names

Span = tuple[int, int]  # where in the text: from, to


def common_words(texts: Iterable[str]) -> frozenset[str]:
    """The words that some text writes without a capital."""
    return CALENDAR | {word for text in texts for word in WORD.findall(text) if word[0].islower()}


def entities(text: str, common: Set[str]) -> list[Span]:
    """The names of a text, in order; words next to each other are one name."""
    words = list(WORD.finditer(text))
    capitals = [word for word in words if word[0][0].isupper()]
    if len(words) > 2 and len(capitals) > SHOUTED * len(words):
        return []
    spans: list[Span] = []
    for word in capitals:
        plain = word[0].removesuffix("'s").removesuffix("\u2019s")
        if len(plain) < 2 or plain.lower() in common:
            continue
        start, end = word.start(), word.start() + len(plain)
        if spans and text[spans[-1][1] : start] == " ":
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


def names(text: str, common: Set[str]) -> frozenset[str]:
    """The names of a text as they compare: without regard to case."""
    return frozenset(text[start:end].casefold() for start, end in entities(text, common))
