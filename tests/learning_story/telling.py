"""The chapters told one after the other, with progress, and the figures of the whole story."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.learning_story import chapters, swaps
from tests.learning_story.chapters import HEARD, NEW, OLD, Tale
from tests.learning_story.grading import curve
from tests.learning_story.people import Desk
from tests.learning_story.real_sets import real_world
from tests.learning_story.stage import Stage
from tests.learning_story.traffic import Stream
from tests.learning_story.world import World

CALM_PER_S = 60.0
CHAPTERS = 10


def told(folder: Path, bootstrap: str, data: Path | None, window_s: float, console: Console) -> dict[str, Any]:
    """The story from its beginning; the figures that it ends with.

    `folder` gets all that is written, `data` are real sets, `window_s` is how long latency is looked at.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = time.monotonic()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("chapters", total=CHAPTERS)

        def tell(words: str) -> None:
            progress.console.print(words, highlight=False, soft_wrap=True)
            if words.startswith("[bold]"):
                progress.advance(bar)

        world = real_world(data) if data else _own_world(folder)
        tell(f"{world.name}: {world.sizes()}")
        stage = Stage(folder, world, bootstrap)
        found = _played(stage, tell, window_s)
    return {**found, "world": world.name, "texts": world.sizes(), "seconds": round(time.monotonic() - began)}


def _own_world(folder: Path) -> World:
    from tests.learning_story.own_words import own_world  # it makes an encoder, and PyTorch takes seconds

    return own_world(folder)


def _played(stage: Stage, tell: chapters.Tell, window_s: float) -> dict[str, Any]:
    world: World = stage.world
    tell("[bold]0. A champion is trained on the world it knows[/bold]")
    stage.train_champion()
    stage.sg("topics", "create")
    stage.stamped_by_the_broker()
    stream = Stream(stage.settings, {OLD: world.hold_out, NEW: world.graded, HEARD: world.heard})
    tale = Tale(stage, stream, Desk(stage.settings, world.labels), tell, CALM_PER_S)
    with stage.running("worker"), stage.running("drift", "watch"):
        stream.begin()
        try:
            chapters.serve(tale)
            chapters.shift(tale)
            chapters.label(tale)
            chapters.retrain(tale)
            chapters.shadow(tale)
            chapters.canary(tale)
            swaps.promote(tale, window_s)
            chapters.worse(tale)
            swaps.roll_back(tale, window_s)
        finally:
            stream.end()
    return _summed_up(tale)


def _summed_up(tale: Tale) -> dict[str, Any]:
    answered = tale.stream.answered()
    ends = [*tale.stretches, ("the end", time.time())]
    points = curve(answered, ends, NEW, OLD)
    for point in points:
        tale.tell(f"{point.from_s:6.0f} s  new {point.new}  old {point.old}  {point.events} events  {point.what}")
    lost = tale.stream.waiting
    tale.tell(f"{len(tale.stream.sender.sent)} events, {lost} lost, {tale.stream.reader.repeated} twice")
    ratios = sorted(one["ratio"] for one in tale.found["swaps"])
    return {
        "lost": lost,
        "p99_ratio_during_swap": ratios[len(ratios) // 2],
        "duplicates": tale.stream.reader.repeated,
        "events": len(tale.stream.sender.sent),
        **tale.found,
        "curve": [point._asdict() for point in points],
    }
