"""Further examples made from those there are, for training: other words, typing errors, other names, other amounts.

Every change keeps the label, each by a rule of its own:
synonyms   only phrases of `synonyms.txt`, whose groups mean the same in any text; words that judge keep their direction
typos      errors that people make, in words long enough to be read all the same (`perturbations.mistyped`)
casing     the same letters, small or capital (`perturbations.recased`); many an encoder reads small ones only
entities   a name for another of the same look from the same data, unless it may itself be what tells the label
numbers    all amounts of a text times one factor: what rose still rose, by the same percentage; a text with a number
           that is no amount, percentage, year or day is left alone
A text that would say what another example says under another label is not made. Data in which the amounts or the names
decide (loan records, for one) must not have those changed: leave these chances at 0.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from models.datasets import Example, labels_of, normalised
from models.entities import common_words, entities
from models.perturbations import mistyped, recased

Change = Callable[[str, random.Random], str]

SYNONYMS = Path(__file__).with_name("synonyms.txt")
REPLACED = 0.5  # of the phrases that have a synonym; one at least
TELLING = 3  # a name seen so often with one label only may be what the label is about
MANY_LABELS = 10  # among more labels (intents) a rarer name may be, too
FACTORS = (0.5, 2.0)  # of amounts
TRIES = 4  # to find a factor by which no two amounts become the same

CURRENCY = r"(?:[$€£¥₹]|\b(?:EUR|USD|GBP|SEK|NOK|DKK|INR|JPY|CHF|Rs\.?|euros?|dollars?|pounds?|rupees)(?![^\W\d]))"
UNIT = r"(?:mn|mln|million|m|bn|billion|b|k|thousand|trillion|crores?|lakhs?|cr)(?!\w)"
PERCENT = r"(?:%|(?:percent|per\s?cent|pct)(?!\w))"
NUMBER = re.compile(
    rf"(?:(?P<currency>{CURRENCY}\s?)|(?<![\w.,:/-]))(?P<number>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)?)(?![,.]?\d)"
    rf"(?:\s?(?P<percent>{PERCENT})|(?P<unit>\s?{UNIT}|\s?{CURRENCY})|(?P<joined>[\w:/-]))?"
)
UNREAD = re.compile(r"(?<![\w:/-])\d")  # what is left over of the digits: a number written in a way we do not know
MONTHS = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
DAY = re.compile(rf"(?:\b{MONTHS}\s)(\d{{1,2}})\b|\b(\d{{1,2}})\s{MONTHS}", re.IGNORECASE)


class AugmentSettings(BaseModel):
    """How many variants, and by what chance each kind of change is in one; 0 leaves a kind out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    copies: int = Field(default=1, ge=1, le=50, description="variants made of each example, at most")
    synonyms: float = Field(default=0.5, ge=0, le=1)
    typos: float = Field(default=0.3, ge=0, le=1)
    casing: float = Field(default=0.0, ge=0, le=1)
    entities: float = Field(default=0.3, ge=0, le=1)
    numbers: float = Field(default=0.3, ge=0, le=1)


def augment(examples: Sequence[Example], settings: AugmentSettings, rng: random.Random) -> list[Example]:
    """Variants of the examples, in their order and with their labels; the examples themselves are not among them.

    An example that nothing can be changed in has fewer than `copies`. No variant repeats an example or another variant.
    The same examples, settings and state of `rng` give the same variants. Give it the training part alone: names are
    taken from all examples.
    """
    changes = [(chance, change) for chance, change in _changes(examples, settings) if chance > 0]
    if not changes:
        return []
    label_of = {normalised(example.text): example.label for example in examples}
    seen = {example.text for example in examples}
    variants = []
    for example in examples:
        for _ in range(settings.copies):
            text = _changed(example.text, changes, rng)
            if text in seen or label_of.get(normalised(text), example.label) != example.label:
                continue
            seen.add(text)
            variants.append(Example(text, example.label))
    return variants


def _changes(examples: Sequence[Example], settings: AugmentSettings) -> list[tuple[float, Change]]:
    """Every kind of change with its chance, in the order they are applied: what is found by its letters comes first."""
    names = _Names(examples) if settings.entities else None
    return [
        (settings.entities, names.exchanged if names else _unchanged),
        (settings.numbers, with_other_amounts),
        (settings.synonyms, with_synonyms),
        (settings.typos, mistyped),
        (settings.casing, recased),
    ]


def _unchanged(text: str, _: random.Random) -> str:
    return text


def _changed(text: str, changes: Sequence[tuple[float, Change]], rng: random.Random) -> str:
    """The text with each change by its chance; with none drawn, one of them."""
    drawn = [change for chance, change in changes if rng.random() < chance]
    for change in drawn or rng.choices([change for _, change in changes], [chance for chance, _ in changes]):
        text = change(text, rng)
    return text


def with_synonyms(text: str, rng: random.Random) -> str:
    """Some phrases replaced by others of their group; capitals at the beginning are kept."""
    pattern, groups = _synonyms()
    found = list(pattern.finditer(text))
    if not found:
        return text
    chosen = [match for match in found if rng.random() < REPLACED] or [rng.choice(found)]
    for match in reversed(chosen):
        other = rng.choice(groups[match[0].lower()])
        if re.search(r"\bI\b", match[0]):
            other = re.sub(r"\bi\b", "I", other)
        if match[0].isupper() and len(match[0]) > 1:
            other = other.upper()
        elif match[0][0].isupper():
            other = other[0].upper() + other[1:]
        text = text[: match.start()] + other + text[match.end() :]
    return text


@cache
def _synonyms() -> tuple[re.Pattern[str], Mapping[str, list[str]]]:
    """What finds a phrase that has synonyms, the longest first, and the others of its group by phrase."""
    groups: dict[str, list[str]] = {}
    for line in SYNONYMS.read_text(encoding="utf-8").splitlines():
        phrases = [] if line.startswith("#") else [phrase.strip() for phrase in line.split(",")]
        for phrase in phrases:
            groups.setdefault(phrase, []).extend(other for other in phrases if other != phrase)
    longest_first = sorted(groups, key=lambda phrase: (-len(phrase), phrase))
    return re.compile(rf"(?<![\w'])(?:{'|'.join(map(re.escape, longest_first))})(?![\w'])", re.IGNORECASE), groups


class _Names:
    """The names in the examples, by look, and which of them may be exchanged."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._common = common_words(example.text for example in examples)
        labels: dict[str, Counter[str]] = defaultdict(Counter)
        looks: dict[str, tuple[str, int, bool]] = {}
        for example in examples:
            for start, end in entities(example.text, self._common):
                name = example.text[start:end]
                labels[name][example.label] += 1
                looks[name] = _look(example.text, start, end)
        many = len(labels_of(examples)) > MANY_LABELS
        self._free = {name for name, its in labels.items() if len(its) > 1 or not (many or its.total() >= TELLING)}
        self._by_look: dict[tuple[str, int, bool], list[str]] = defaultdict(list)
        for name in sorted(self._free):
            self._by_look[looks[name]].append(name)

    def exchanged(self, text: str, rng: random.Random) -> str:
        """Every free name replaced by another of its look; the same one alike."""
        chosen: dict[str, str] = {}
        for start, end in reversed(entities(text, self._common)):
            name = text[start:end]
            others = self._by_look.get(_look(text, start, end), [])
            if name in self._free and len(others) > 1:
                chosen.setdefault(name, rng.choice(others))
                text = text[:start] + chosen[name] + text[end:]
        return text


def _look(text: str, start: int, end: int) -> tuple[str, int, bool]:
    """What a name has in common with those it may be exchanged for: the sign before it, words, capitals throughout."""
    sign = text[start - 1] if start and text[start - 1] in "$@#" else ""
    return sign, text.count(" ", start, end), text[start:end].isupper()


def with_other_amounts(text: str, rng: random.Random) -> str:
    """All amounts of money or in millions times one factor, written as they were; see the module for what is not."""
    days = {match.span(1 if match[1] else 2) for match in DAY.finditer(text)}
    numbers = [match for match in NUMBER.finditer(text) if match.span("number") not in days]
    amounts = [match for match in numbers if _is_amount(match)]
    compared = [match for match in numbers if match not in amounts and not _is_left_alone(match)]
    if not amounts or compared or UNREAD.search(NUMBER.sub(r"\g<joined>", text)):
        return text
    old = [match["number"] for match in amounts]
    for _ in range(TRIES):
        factor = FACTORS[0] * (FACTORS[1] / FACTORS[0]) ** rng.random()
        new = [_times(number, factor) for number in old]
        if len(set(map(_value, new))) == len(set(map(_value, old))) and min(map(_value, new)) > 0:
            break
    else:
        return text
    for match, number in zip(reversed(amounts), reversed(new), strict=True):
        text = text[: match.start("number")] + number + text[match.end("number") :]
    return text


def _is_amount(match: re.Match[str]) -> bool:
    if match["joined"] or match["percent"]:
        return False
    return bool(match["currency"] or match["unit"] or "," in match["number"])


def _is_left_alone(match: re.Match[str]) -> bool:
    """A percentage, a year, or part of something else: no amount is compared with it."""
    year = match["number"].isdecimal() and 1900 <= int(match["number"][:9]) < 2100
    return bool(match["joined"] or match["percent"]) or year


def _times(number: str, factor: float) -> str:
    decimals = len(number.partition(".")[2])
    return f"{_value(number) * factor:{',' if ',' in number else ''}.{decimals}f}"


def _value(number: str) -> float:
    return float(number.replace(",", ""))
