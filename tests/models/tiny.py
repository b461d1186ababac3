"""Made-up examples that a tiny model learns at once."""

from models.datasets import Example

GOOD = ("profit", "rises", "record", "sales", "strong", "growth", "beats", "raises")
BAD = ("loss", "falls", "weak", "fraud", "probe", "cuts", "misses", "default")
FILLER = ("the", "company", "says", "today", "in", "of", "its", "shares", "quarter", "year", "bank", "for")
MONEY = ("dollar", "euro", "yen")


def make_examples(count: int, start: int = 0) -> list[Example]:
    """Texts of 1 to 12 words whose label any bag of words can tell."""
    examples = []
    for row in range(start, start + count):
        words = GOOD if row % 2 else BAD
        text = [FILLER[(row * 5 + place) % len(FILLER)] for place in range(row % 11)]
        text.insert(row % (len(text) + 1), words[row % len(words)] + " " + str(row))
        examples.append(Example(" ".join(text), "good" if row % 2 else "bad"))
    return examples


def make_money(count: int, start: int = 0) -> list[Example]:
    """Texts of 1 to 9 words about one of three kinds of money."""
    examples = []
    for row in range(start, start + count):
        text = [FILLER[(row * 7 + place) % len(FILLER)] for place in range(row % 8)]
        text.insert(row % (len(text) + 1), f"{MONEY[row % 3]} {row}")
        examples.append(Example(" ".join(text), MONEY[row % 3]))
    return examples


def ignore(what: str, done: int, total: int) -> None:
    """A progress that nobody watches."""
