"""The story on real sets: what people say to an assistant at home, by two sets made by other people in other ways.

The champion learns from `clinc150` alone. The world shifts to `hwu64`: the same requests in other words and habits, and
three that the champion has never heard of. Nothing of one set is nearly a text of the other.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from models.datasets import Example, check, read_jsonl
from models.near_duplicates import closest, near_duplicates
from tests.learning_story.world import World

OLD_SET, NEW_SET = "clinc150", "hwu64"
REQUESTS = {  # a label of the old set, and what the new set calls it
    "alarm": ("alarm_query", "alarm_remove", "alarm_set"),
    "calendar": ("calendar_query",),
    "calendar_update": ("calendar_remove", "calendar_set"),
    "change_volume": ("audio_volume_down", "audio_volume_mute", "audio_volume_up"),
    "play_music": ("play_music",),
    "repeat": ("general_repeat",),
    "shopping_list": ("lists_query",),
    "shopping_list_update": ("lists_createoradd", "lists_remove"),
    "smart_home": ("iot_cleaning", "iot_coffee", "iot_hue_lightoff", "iot_hue_lighton", "iot_wemo_off", "iot_wemo_on"),
    "time": ("datetime_query",),
    "weather": ("weather_query",),
    "what_song": ("music_query",),
}
UNMOVED = (  # the champion knows them, too, and nobody says them in other words
    "calories", "cook_time", "find_phone", "flip_coin", "insurance", "next_song", "reminder", "reminder_update",
    "roll_dice", "spelling", "timer", "timezone", "todo_list", "todo_list_update", "translate", "update_playlist",
)  # fmt: skip
UNHEARD = {"news": ("news_query",), "post": ("social_post",), "send_email": ("email_sendemail",)}
MOST_OF_LABEL = 70  # texts of the new wording: of the old one there are about as many
HOLD_OUT, TAUGHT = 1200, 1000  # texts: with a smaller hold-out the gate refuses many that are as good
HEARD_SHARE = 0.5
SEED = 7


def real_world(data: Path) -> World:
    """The sets of a folder, `DIR/{clinc150,hwu64}/{train,dev}.jsonl`.

    Raises:
        BadDataset: they are not there.
    """
    ours = {its: label for label, theirs in (REQUESTS | UNHEARD).items() for its in theirs}
    old = unlike_before([row for row in _rows(data / OLD_SET) if row.label in (*REQUESTS, *UNMOVED)])
    found = [Example(row.text, ours[row.label]) for row in _rows(data / NEW_SET) if row.label in ours]
    new = _at_most(unlike(unlike_before(found), old))
    heard = int(len(new) * HEARD_SHARE)
    return World(
        name=f"requests at home, as in {OLD_SET} and then in {NEW_SET}",
        labels=(*REQUESTS, *UNMOVED, *UNHEARD),
        taught=old[HOLD_OUT : HOLD_OUT + TAUGHT],
        hold_out=old[:HOLD_OUT],
        heard=new[:heard],
        graded=new[heard:],
        base=None,
        training=("--recipe", "quick"),
        knobs={},
    )


def unlike_before(examples: Sequence[Example]) -> list[Example]:
    """Those that are like none before them."""
    like = {pair.second for pair in near_duplicates([row.text for row in examples])}
    return [row for place, row in enumerate(examples) if place not in like]


def unlike(examples: Sequence[Example], others: Sequence[Example]) -> list[Example]:
    """Those that are like none of the others."""
    like = closest([row.text for row in examples], [row.text for row in others])
    return [row for row, pair in zip(examples, like, strict=True) if pair is None]


def _rows(folder: Path) -> list[Example]:
    rows = [row for part in ("train", "dev") for row in check(read_jsonl(folder / f"{part}.jsonl")).examples]
    random.Random(SEED).shuffle(rows)
    return rows


def _at_most(examples: Sequence[Example]) -> list[Example]:
    by_label: dict[str, list[Example]] = defaultdict(list)
    for row in examples:
        by_label[row.label].append(row)
    kept = [row for its in by_label.values() for row in its[:MOST_OF_LABEL]]
    random.Random(SEED).shuffle(kept)
    return kept
