"""The story on a real set: fraudulent text messages among advertisements and private ones (`smishing_5971`).

The champion knows every kind of fraud but one: that somebody has won something. That is what the world shifts to.
Nothing of the new wording is nearly a text of the old one, and no text that people label is nearly one that is graded.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

from models.datasets import Example, check, read_jsonl
from models.near_duplicates import closest, near_duplicates
from tests.learning_story.world import BENIGN, SCAM, World

SET = "smishing_5971"  # labels: ham, spam (advertisements) and smishing (fraud)
FRAUD = "smishing"
WON = re.compile(r"\b(w[o0]n|wins?|w[i1]nner|prizes?|award\w*|lucky|draws?|claims?|congrat\w*|selected)\b", re.I)
ALIKE = 0.6  # stricter than the 0.8 of the product: messages are made from templates
ALIKE_IN_ONE_WORLD = 0.8  # of the old wording: there are templates in every world
MOST_BENIGN = 2200  # of the old wording: there are many, and private messages are easily told
HOLD_OUT_SHARE = 0.5
HEARD_SHARE = 0.6
BENIGN_A_SCAM = 2  # of the new wording
SEED = 7


def real_world(data: Path) -> World:
    """The sets of a folder, `DIR/smishing_5971/{train,dev}.jsonl`.

    Raises:
        BadDataset: they are not there.
    """
    rows = [row for part in ("train", "dev") for row in check(read_jsonl(data / SET / f"{part}.jsonl")).examples]
    random.Random(SEED).shuffle(rows)
    wins = [Example(row.text, SCAM) for row in rows if row.label == FRAUD and WON.search(row.text)]
    others = [Example(row.text, SCAM if row.label == FRAUD else BENIGN) for row in rows if not WON.search(row.text)]
    wins = unlike(wins, [row for row in others if row.label == SCAM])
    benign = [row for row in unlike(others, []) if row.label == BENIGN][: BENIGN_A_SCAM * len(wins)]
    new = [*wins, *benign]
    random.Random(SEED).shuffle(new)
    old = unlike_these(others, new)
    spared = [row for row in old if row.label == BENIGN][MOST_BENIGN:]
    old = [row for row in old if row not in {*spared}]
    cut, heard = int(len(old) * HOLD_OUT_SHARE), int(len(new) * HEARD_SHARE)
    return World(
        name=f"{SET}: fraud without and with winnings",
        taught=unlike_these(old[cut:], old[:cut], ALIKE_IN_ONE_WORLD),
        hold_out=old[:cut],
        heard=new[:heard],
        graded=new[heard:],
        base=None,
        training=("--recipe", "quick"),
        knobs={},
    )


def unlike(examples: Sequence[Example], before: Sequence[Example]) -> list[Example]:
    """Those that are like none before them."""
    texts = [row.text for row in (*before, *examples)]
    like = {pair.second - len(before) for pair in near_duplicates(texts, ALIKE)}
    return [row for place, row in enumerate(examples) if place not in like]


def unlike_these(examples: Sequence[Example], others: Sequence[Example], alike: float = ALIKE) -> list[Example]:
    """Those that are like none of the others."""
    like = closest([row.text for row in examples], [row.text for row in others], alike)
    return [row for row, pair in zip(examples, like, strict=True) if pair is None]
