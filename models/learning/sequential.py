"""Challenger against champion on live texts, judged after each label that comes in, at any time, without paying for it.

A label says of a text which of the two had it right: +1 only the challenger, -1 only the champion, 0 both or neither.
A gambler who starts with 1 bets against "the mean is at most m", a fraction of the wealth on every text. If that is so,
the game is fair at best, and the chance that the wealth ever reaches 1 / alpha is at most alpha (Ville 1939), whenever
one looks and however often. Such wealth is an e-process: Shafer 2021 "Testing by betting"; Grünwald, de Heide & Koolen
2024 "Safe testing"; for means of bounded variables Waudby-Smith & Ramdas 2024. The wealth here is the mean of gamblers
who each keep to one fraction: the method of mixtures (Robbins 1970), as in the mixture test of Johari, Koomen, Pekelis
& Walsh 2022 "Always valid inference". It depends on the counts alone.

What it needs of the texts: they are drawn without looking at what either release says. Labels of texts that the
champion doubted flatter the challenger, which has doubts of its own. Copies of a text are one text.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models.learning.opinions import text_key

FRACTIONS = np.geomspace(0.03, 0.9, 12)  # of the most that can be bet: small ones see little, large ones see it soon
STEPS = 40  # of a bisection: bounds to within 1e-11
MOST_LOOKS = 400  # that are kept, for a curve

Action = Literal["promote", "roll back", "go on", "give up"]


class DuelSettings(BaseModel):
    """When challenger against champion is decided."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promote_error: float = Field(default=0.05, gt=0, lt=1, description="chance to promote one that is not better")
    rollback_error: float = Field(default=0.05, gt=0, lt=1, description="chance to take back one that is not worse")
    better_by: float = Field(default=0.0, gt=-1, lt=1, description="share of texts more it must have right; may be < 0")
    worse_by: float = Field(default=0.0, ge=0, lt=1, description="share of texts fewer it may have right")
    fewest_labels: int = Field(default=30, ge=1, description="before nothing is decided")
    most_labels: int = Field(default=20_000, ge=1, description="after which it is given up")


@dataclass(frozen=True)
class Duel:
    """One live text that both releases answered and a person has labelled since."""

    text: str
    label: str
    champion: str
    challenger: str


class Tally(BaseModel):
    """How many texts each had right."""

    model_config = ConfigDict(frozen=True)

    gained: int = 0
    lost: int = 0
    both_right: int = 0
    both_wrong: int = 0

    @property
    def tied(self) -> int:
        """Texts that speak for neither."""
        return self.both_right + self.both_wrong

    @property
    def n(self) -> int:
        """All of them."""
        return self.gained + self.lost + self.tied

    @property
    def champion_accuracy(self) -> float:
        """Share of the texts that the champion had right; 0 without texts."""
        return (self.lost + self.both_right) / self.n if self.n else 0.0

    @property
    def challenger_accuracy(self) -> float:
        """Share of the texts that the challenger had right; 0 without texts."""
        return (self.gained + self.both_right) / self.n if self.n else 0.0

    def and_also(self, duel: Duel) -> "Tally":
        """With one text more."""
        champion, challenger = duel.champion == duel.label, duel.challenger == duel.label
        name = {
            (False, True): "gained",
            (True, False): "lost",
            (True, True): "both_right",
            (False, False): "both_wrong",
        }
        field = name[champion, challenger]
        return self.model_copy(update={field: getattr(self, field) + 1})


class Look(BaseModel):
    """The evidence after `n` texts: e-values of "not better" and "not worse"; 20 is as good as an error of 5%."""

    model_config = ConfigDict(frozen=True)

    n: int
    e_better: float
    e_worse: float


class Standing(BaseModel):
    """What the labels say so far.

    `low` and `high` hold the challenger's gain, a share of the texts: see `bounds`. An e-value decides from
    `promote_at` and `rollback_at` on.
    """

    model_config = ConfigDict(frozen=True)

    action: Action
    reason: str
    tally: Tally
    low: float
    high: float
    promote_at: float
    rollback_at: float
    looks: tuple[Look, ...]


def log_e(gained: int, lost: int, tied: int, mean: float = 0.0) -> float:
    """The natural logarithm of the e-value against "the mean is at most `mean`", which is in (-1, 1)."""
    bets = FRACTIONS / (1 + mean)  # what is bet on a text: even a lost one leaves something
    wealth = gained * np.log1p(bets * (1 - mean)) + tied * np.log1p(-bets * mean) + lost * np.log1p(-bets * (1 + mean))
    most = float(wealth.max())
    return most + math.log(float(np.exp(wealth - most).mean()))


def bounds(tally: Tally, low_error: float, high_error: float) -> tuple[float, float]:
    """(low, high) of the means that are not rejected: a confidence sequence (Howard, Ramdas, McAuliffe & Sekhon 2021).

    The chance that the truth is ever below `low` is at most `low_error`, above `high` at most `high_error`.
    """
    low = _low(tally.gained, tally.lost, tally.tied, low_error)
    return low, -_low(tally.lost, tally.gained, tally.tied, high_error)


def _low(gained: int, lost: int, tied: int, alpha: float) -> float:
    low, high = -1.0, 1.0  # the e-value falls as the mean rises
    for _ in range(STEPS):
        middle = (low + high) / 2
        if log_e(gained, lost, tied, middle) >= -math.log(alpha):
            low = middle
        else:
            high = middle
    return low


def standing(duels: Iterable[Duel], settings: DuelSettings) -> Standing:
    """What follows from the duels in the order in which their labels came.

    The first decision stands, whatever comes after it. A text counts once, by its first label: copies of it (as
    `opinions.text_key` tells them) are no new evidence, and an answer that is corrected later is not taken back.
    """
    tally, seen = Tally(), set[str]()
    looks: list[Look] = []
    action: Action = "go on"
    for duel in duels:
        key = text_key(duel.text)
        if key in seen:
            continue
        seen.add(key)
        tally = tally.and_also(duel)
        looks.append(_look(tally, settings))
        action = _action(looks[-1], settings)
        if action != "go on":
            break
    low, high = bounds(tally, settings.promote_error, settings.rollback_error)
    kept = (*looks[: -1 : max(1, len(looks) // MOST_LOOKS)], *looks[-1:])
    reason = _reason(action, tally, settings)
    return Standing(
        action=action,
        reason=reason,
        tally=tally,
        low=low,
        high=high,
        promote_at=1 / settings.promote_error,
        rollback_at=1 / settings.rollback_error,
        looks=kept,
    )


def _look(tally: Tally, settings: DuelSettings) -> Look:
    better = log_e(tally.gained, tally.lost, tally.tied, settings.better_by)
    worse = log_e(tally.lost, tally.gained, tally.tied, settings.worse_by)
    return Look(n=tally.n, e_better=_exp(better), e_worse=_exp(worse))


def _exp(logarithm: float) -> float:
    return math.exp(min(logarithm, 700.0))  # beyond that a float has no more room, and no decision needs any


def _action(look: Look, settings: DuelSettings) -> Action:
    if look.n < settings.fewest_labels:
        return "go on"
    if look.e_worse >= 1 / settings.rollback_error:
        return "roll back"
    if look.e_better >= 1 / settings.promote_error:
        return "promote"
    return "give up" if look.n >= settings.most_labels else "go on"


def _reason(action: Action, tally: Tally, settings: DuelSettings) -> str:
    told = f"of {tally.n} labelled texts {tally.gained} gained and {tally.lost} lost"
    return {
        "promote": f"better: {told} (error at most {settings.promote_error:g}, at any time)",
        "roll back": f"worse: {told} (error at most {settings.rollback_error:g}, at any time)",
        "go on": f"not decided: {told}",
        "give up": f"not decided after {settings.most_labels} labels: {told}",
    }[action]
