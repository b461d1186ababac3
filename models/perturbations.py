"""Texts as they also come: mistyped, in other letters, about others, with a negation, with something at the end.

All of them leave what the text says as it was, but `contradicted`, which turns it round. The same text, name and seed
give the same result, whatever stands beside it, and what finds nothing to change gives the text back. (The kinds are
those of CheckList's invariance and directional tests: Ribeiro et al. 2020, arXiv:2005.04118.)
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set

from models.entities import common_words, entities

Change = Callable[[str, random.Random], str]

TYPING_RATE = 1 / 8  # of the words that are long enough; one of them at least
SHORTEST_MISTYPED = 4  # letters: with an error, shorter words are other words
ROWS_OF_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
LETTERS = re.compile(r"[^\W\d_]+")

CONTRACTIONS = {
    "cannot": "can't",
    "will not": "won't",
    **{
        f"{verb} not": f"{verb}n't"
        for verb in "do does did is are was were has have had would could should need must".split()
    },
}
FULL_FORMS = {short: full for full, short in CONTRACTIONS.items()}
NEGATION = re.compile(rf"\b({'|'.join([*CONTRACTIONS, *FULL_FORMS])})\b", re.IGNORECASE)
ASIDES = (
    "This is not about anything else.",
    "Nothing else has changed.",
    "There is nothing more to say.",
    "No further comment was made.",
)
CONTRADICTION = "It is not true that "

SYLLABLES = "bra cel dor fen gal hu ister jo kas lum mira nov ol pren quil ras sol tar ul vex wen xan yor zel".split()

ENDINGS = (
    " https://t.co/{word}",
    " #{word} #{word}",
    " @{word}",
    " Sent from my phone",
    " ...",
    "!!!",
    " \U0001f440\U0001f447",
    " ({number})",
    " | ref {number}-{word}",
    "\n--\n{word}@example.com",
)


def changes(texts: Iterable[str]) -> Mapping[str, Change]:
    """By name, what keeps the label; what a name in a text is, follows from `texts`: see `models.entities`."""
    common = common_words(texts)
    return {
        "typing errors": mistyped,
        "casing": recased,
        "unseen entities": lambda text, rng: renamed(text, rng, common),
        "negation, other form": other_negation,
        "negation, aside": with_aside,
        "appended noise": with_noise,
    }


def perturbed(texts: Sequence[str], name: str, change: Change, seed: int) -> list[str]:
    """Every text changed once, each by chances of its own."""
    return [change(text, random.Random(f"{seed}/{name}/{text}")) for text in texts]  # noqa: S311 - nothing secret


def mistyped(text: str, rng: random.Random) -> str:
    """One typing error in about every eighth word: letters swapped, left out, doubled, or the key beside the right one.

    The first letter of a word is left alone, as people hit it.
    """
    words = [match.span() for match in LETTERS.finditer(text) if len(match[0]) >= SHORTEST_MISTYPED]
    if not words:
        return text
    chosen = {span for span in words if rng.random() < TYPING_RATE} or {rng.choice(words)}
    for start, end in sorted(chosen, reverse=True):
        text = text[:start] + _misspelt(text[start:end], rng) + text[end:]
    return text


def _misspelt(word: str, rng: random.Random) -> str:
    place = rng.randrange(1, len(word) - 1)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    errors = [before + after, before + 2 * letter + after]
    if after[0] != letter:
        errors.append(before + after[0] + letter + after[1:])
    if beside := _keys_beside(letter):
        errors.append(before + rng.choice(beside) + after)
    return rng.choice(errors)


def _keys_beside(letter: str) -> list[str]:
    for row in ROWS_OF_KEYS:
        place = row.find(letter)
        if place >= 0:
            return [*row[max(0, place - 1) : place], *row[place + 1 : place + 2]]
    return []


def recased(text: str, rng: random.Random) -> str:
    """All small, all capitals, every word with a capital, or small and capital letters exchanged."""
    forms = {text.lower(), text.upper(), text.title(), text.swapcase()} - {text}
    return rng.choice(sorted(forms)) if forms else text


def renamed(text: str, rng: random.Random, common: Set[str]) -> str:
    """Every name in it replaced by one that nobody has; the same one alike."""
    invented: dict[str, str] = {}
    for start, end in reversed(entities(text, common)):
        name = text[start:end]
        if name not in invented:
            invented[name] = " ".join(_invented(word, rng) for word in name.split(" "))
        text = text[:start] + invented[name] + text[end:]
    return text


def _invented(word: str, rng: random.Random) -> str:
    made = "".join(rng.choices(SYLLABLES, k=2 if len(word) < 6 else 3))
    return made[: max(3, len(word))].upper() if word.isupper() else made.capitalize()


def other_negation(text: str, rng: random.Random) -> str:
    """The other form of every negated verb: "can't" for "cannot", "did not" for "didn't"."""

    def other(match: re.Match[str]) -> str:
        found = match[0].lower()
        form = CONTRACTIONS.get(found) or FULL_FORMS[found]
        return form.capitalize() if match[0][0].isupper() else form

    return NEGATION.sub(other, text)


def with_aside(text: str, rng: random.Random) -> str:
    """A sentence after it that denies something else, so that a negation alone must not decide."""
    return f"{_ended(text)} {rng.choice(ASIDES)}"


def with_noise(text: str, rng: random.Random) -> str:
    """Something after it that messages carry at their end: a link, a tag, a handle, a signature, a reference."""
    word = "".join(rng.choices(SYLLABLES, k=3))
    return text + rng.choice(ENDINGS).format(word=word, number=rng.randrange(1000, 10_000))


def contradicted(text: str) -> str:
    """The opposite statement; its label is another one, though which one a text cannot say."""
    return CONTRADICTION + text[0].lower() + text[1:] if text[1:2].islower() else CONTRADICTION + text


def _ended(text: str) -> str:
    text = text.rstrip()
    return text if text.endswith((".", "!", "?")) else text + "."
