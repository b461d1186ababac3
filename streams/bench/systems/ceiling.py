"""The ceiling: the same model and runtime with nothing around it.

Texts are tokenised beforehand, sorted by length and cut into batches of a token budget; as many threads as the runtime
takes at once run them. The batches are mixed so that any part of the run is like the whole.
"""

from __future__ import annotations

import json
import queue
import random
import threading
from collections.abc import Sequence
from typing import NamedTuple

from streams.bench.job import Job
from streams.bench.systems.model import ModelScorer

_BATCH_TOKENS = {"cpu": 2048, "cuda": 32_768}  # padded; where each kind of device is at its best


class _Window(NamedTuple):
    ids: list[int]
    texts: int  # 1 for the first window of a text, 0 for its others


def main(job: Job) -> None:
    """Score all texts once, then wait to be ended."""
    scorer = ModelScorer(job)
    texts = json.loads(job.texts_file.read_text(encoding="utf-8"))
    windows = [_Window(ids, int(place == 0)) for of_text in scorer.windows(texts) for place, ids in enumerate(of_text)]
    todo = queue.SimpleQueue[list[_Window] | None]()
    for batch in batches(windows, _BATCH_TOKENS[scorer.device]):
        todo.put(batch)

    def work() -> None:
        while batch := todo.get():
            scorer.run([one.ids for one in batch], sum(one.texts for one in batch))

    threads = [threading.Thread(target=work) for _ in range(scorer.slots)]
    for thread in threads:
        todo.put(None)
        thread.start()
    for thread in threads:
        thread.join()
    threading.Event().wait()


def batches(windows: Sequence[_Window], max_tokens: int) -> list[list[_Window]]:
    """Cut windows into batches of similar length, each of at most `max_tokens` with padding; mixed, always alike."""
    cut: list[list[_Window]] = []
    for window in sorted(windows, key=lambda one: len(one.ids)):  # the longest of a batch is its last
        if cut and (len(cut[-1]) + 1) * len(window.ids) <= max_tokens:
            cut[-1].append(window)
        else:
            cut.append([window])
    random.Random(0).shuffle(cut)  # noqa: S311  an order
    return cut


if __name__ == "__main__":
    main(Job.from_command_line())
