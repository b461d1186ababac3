"""Promotion and rollback while events flow at 70% of what the worker can do: what is late, and for whom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.learning_story.chapters import LOAD, NEW, OLD, PATIENCE_S, Tale, on_known_labels
from tests.learning_story.grading import latencies, macro_f1, of_pool
from tests.learning_story.world import TASK


@dataclass(frozen=True)
class Window:
    """A stretch of calm and as long a one with the swap in it, milliseconds since 1970."""

    what: str
    calm_ms: int
    swap_ms: int
    end_ms: int
    swapped_after_s: float  # from the command to the last answer of the release before


def promote(tale: Tale, window_s: float) -> None:
    tale.chapter("Labels decide: it is promoted while events flow")
    act = ("releases", "judge", TASK, "--act", "--json")
    judged: list[Any] = []
    window = swap(tale, "promotion", lambda: judged.append(tale.stage.sg(*act, aside=True)), tale.successor, window_s)
    tale.tell(f"{judged[0]['standing']['action']}: {judged[0]['standing']['reason']}")
    if not judged[0]["done"]:
        raise RuntimeError("the labels did not decide for it")
    tale.stream.sender.flow(tale.calm_per_s)
    tale.until(lambda: _all_answered(tale), f"an answer of {tale.successor} to every text that is graded")
    answered = tale.stream.answered()
    after = {
        f"f1_{name}_after": macro_f1(of_pool(answered, pool, tale.successor))
        for name, pool in (("new", NEW), ("old", OLD))
    }
    tale.tell(f"macro-F1 now: new {after['f1_new_after']}, old {after['f1_old_after']}")
    tale.found |= after | {"f1_known_labels_after": on_known_labels(tale, tale.successor)}
    _note(tale, window)


def _all_answered(tale: Tale) -> bool:
    world, answered = tale.stage.world, tale.stream.answered()
    graded = ((NEW, world.graded), (OLD, world.hold_out))
    return all(len(of_pool(answered, pool, tale.successor)) == len(texts) for pool, texts in graded)


def roll_back(tale: Tale, window_s: float) -> None:
    tale.chapter("Rolled back, and forward again")
    rollback = partial(tale.stage.sg, "releases", "rollback", TASK, aside=True)
    back = swap(tale, "rollback", rollback, tale.champion, window_s)
    served = tale.served_by(tale.champion)
    _note(tale, back)
    forth = swap(tale, "rollback of the rollback", rollback, tale.successor, window_s)
    tale.found["rollback_ok"] = served and tale.served_by(tale.successor)
    _note(tale, forth)


def swap(tale: Tale, what: str, command: Callable[[], object], to: str, window_s: float) -> Window:
    """Let events flow at the load, give the command after `window_s`, and look on for as long again.

    Raises TimeoutError when the other release does not serve within the patience of the story.
    """
    tale.stream.sender.flow(LOAD * tale.capacity_per_s, NEW, OLD)
    tale.until(lambda: tale.stream.waiting < tale.capacity_per_s, "a worker that keeps up")
    calm_ms = _now_ms()
    time.sleep(window_s)
    swap_ms, first = _now_ms(), len(tale.stream.reader.answers)
    command()
    tale.until(lambda: tale.served_by(to), f"{what}: answers of {to}")
    served_s = _now_ms() / 1000 - swap_ms / 1000
    tale.mark(f"after the {what}")
    time.sleep(max(0.0, window_s - served_s))
    end_ms = swap_ms + (_now_ms() - swap_ms if served_s > window_s else int(1000 * window_s))
    tale.stream.sender.flow(tale.calm_per_s)
    tale.stream.drained(PATIENCE_S)
    before_ms = [answer.came_ms for _, answer in tale.stream.answered(first) if answer.release != to]
    return Window(what, calm_ms, swap_ms, end_ms, max(before_ms) / 1000 - swap_ms / 1000)


def _note(tale: Tale, window: Window) -> None:
    answered = tale.stream.answered()
    calm = latencies(answered, window.calm_ms, window.swap_ms)
    during = latencies(answered, window.swap_ms, window.end_ms)
    ratio = during.p99_ms / calm.p99_ms
    tale.tell(
        f"{window.what}: serves after {window.swapped_after_s:.1f} s; p99 {calm.p99_ms:.0f} ms before,"
        f" {during.p99_ms:.0f} ms during it ({ratio:.2f} times)"
    )
    tale.found.setdefault("swaps", []).append({
        "what": window.what, "after_s": round(window.swapped_after_s, 1), "p50_ms_before": calm.p50_ms,
        "p50_ms_during": during.p50_ms, "p99_ms_before": calm.p99_ms, "p99_ms_during": during.p99_ms,
        "ratio": round(ratio, 2),
    })  # fmt: skip


def _now_ms() -> int:
    return int(1000 * time.time())
