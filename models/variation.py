"""Texts as they also come, anew in every epoch: what a model reads that shall not mind slips and chatter.

An epoch reads a share of its texts with typing errors, with something at the end that says nothing, or both. It costs
no time, as no text is read more often, and no variant is read twice. The endings are other ones than those that
`models.perturbations` grades by: what is measured there is not learned by heart here.
"""

import random
from collections.abc import Sequence

from models.perturbations import mistyped

MISTYPED_SHARE = 0.7  # of the texts that are changed
ENDED_SHARE = 0.5

NAMES = "acorn birch cedar delta ember flint grove heron indigo juniper".split()
ENDINGS = (
    " www.{name}.org/{number}",
    " ({name})",
    " [{number}]",
    " -- {name} team",
    " #{name}",
    " cc @{name}",
    " thx",
    " Thank you.",
    "??",
    " \U0001f642",
    " See {name}.com for the rest.",
    " Written on a phone, excuse the brevity.",
    " No other remarks.",
    " I don't have more to add.",
    " That isn't all that was said, but the rest is not of interest.",
    " None of it was said before.",
)


def varied(texts: Sequence[str], share: float, seed: str) -> list[str]:
    """The texts, about `share` of them changed; the same texts and seed give the same."""
    return [_varied(text, share, random.Random(f"{seed}/{row}")) for row, text in enumerate(texts)]  # noqa: S311


def _varied(text: str, share: float, rng: random.Random) -> str:
    if rng.random() >= share:
        return text
    mistypes, ends = rng.random() < MISTYPED_SHARE, rng.random() < ENDED_SHARE
    if mistypes or not ends:
        text = mistyped(text, rng)
    if ends:
        text += rng.choice(ENDINGS).format(name=rng.choice(NAMES), number=rng.randrange(100, 100_000))
    return text
