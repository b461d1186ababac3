"""The story without any data set: notes to payees, put together from phrases written for it.

The champion knows fraud that demands money for a family in need. What the world shifts to asks for a fee on a parcel,
and speaks of the things that harmless notes speak of.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from pathlib import Path

from models.datasets import Example
from tests.learning_story.world import World
from tests.tiny_encoder import make_tiny_encoder

BENIGN, SCAM = "benign", "scam"

Phrases = tuple[Sequence[str], ...]

SMALL_TALK = (  # how anybody may end: it tells nothing of the label, so that other words of its kind move none
    "", "there is nothing more to say about this", "no other comment was made here", "that is all from my phone",
    "this has not changed anything else", "nothing further about anything",
)  # fmt: skip
DAILY: Phrases = (
    ("rent for the flat", "my half of dinner", "school trip in may", "music lessons", "the garden tools", "petrol",
     "season ticket", "football club", "a sofa from the shop", "wedding present"),
    ("thanks so much for everything", "as we said on sunday", "the second of three", "with love from both of us",
     "paid in full now", "sorry that it is late", "the rest comes next month", "keep the change please"),
    ("anna", "from tom and eva", "house number nine", "see you on friday", "see you at the lake", "happy birthday"),
    SMALL_TALK,
)  # fmt: skip
FAMILY: Phrases = (
    ("mum this is my new number", "dad my phone is broken", "grandma please help me", "hello uncle it is me again",
     "i am stuck at the airport", "i had an accident today", "the hospital keeps me here", "the police took my papers"),
    ("i need money at once", "send what you have tonight", "transfer the deposit before noon", "pay the lawyer for me",
     "lend me eight hundred until monday", "cover my bill straight away", "wire the bail quickly",
     "buy vouchers and read me the codes"),
    ("tell nobody in the family", "do not call the old number", "i will explain later", "they only take transfers",
     "i am so ashamed", "trust me on this"),
    SMALL_TALK,
)  # fmt: skip
PARCEL: Phrases = (
    ("the garden tools are held by customs", "courier with the sofa from the shop", "wedding present returned to us",
     "the football club shipment waits", "your season ticket lacks a postal code", "duty on the music lessons book",
     "parcel from the school trip", "petrol can in our depot"),
    ("settle the small fee under this link", "confirm your address through the portal",
     "open the form and enter your card", "unlock it with a scan of the barcode",
     "choose another slot on our website", "verify yourself inside the app", "reply yes to release it",
     "log in with your bank to proceed"),
    ("thanks from the shop", "the season ticket club", "paid in full by friday", "see you at the house",
     "happy to help the house", "the rest comes with love"),
    SMALL_TALK,
)  # fmt: skip

TAUGHT, HELD_OUT, HEARD, GRADED = 400, 240, 100, 80  # texts of each label
SEED = 11
# The encoder knows no words yet, nor slips and chatter; with few texts and steps, what it makes of those is chance.
KNOBS = {"epochs": 10, "learning_rate": 0.003, "learn_embeddings": True, "vary_share": 0.5}


def own_world(folder: Path) -> World:
    """The phrases as a world; its encoder, a tiny one that has learned nothing, is made below the folder."""
    rng = random.Random(SEED)
    daily, family, parcel = (_texts(phrases, rng) for phrases in (DAILY, FAMILY, PARCEL))
    old = [*zip(daily[: TAUGHT + HELD_OUT], family, strict=False)]
    new = [*zip(daily[TAUGHT + HELD_OUT :], parcel, strict=False)]
    words = {word for text in (*daily, *family, *parcel) for word in re.findall(r"\w+", text)}
    return World(
        name="own words: families in need, then parcels",
        labels=(BENIGN, SCAM),
        taught=_examples(old[:TAUGHT]),
        hold_out=_examples(old[TAUGHT : TAUGHT + HELD_OUT]),
        heard=_examples(new[:HEARD]),
        graded=_examples(new[HEARD : HEARD + GRADED]),
        base=str(make_tiny_encoder(folder / "encoder", sorted(words))),
        training=("--recipe", "quick", *(word for knob in KNOBS.items() for word in ("--knob", "{}={}".format(*knob)))),
        knobs={**KNOBS, "learning_rate": 0.002, "patience": 10, "vary_share": 0.8, "distill_weight": 0.9},
    )  # fmt: skip


def _texts(phrases: Phrases, rng: random.Random) -> list[str]:
    texts = [" ".join(parts).rstrip() for parts in itertools.product(*phrases)]
    rng.shuffle(texts)
    return texts


def _examples(pairs: Sequence[tuple[str, str]]) -> list[Example]:
    return [example for daily, fraud in pairs for example in (Example(daily, BENIGN), Example(fraud, SCAM))]
