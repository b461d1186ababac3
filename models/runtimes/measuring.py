"""How fast a runtime is on a release's own texts, and which of several to take."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from models.golden import Golden
from models.padding import length_sorted_batches, padded
from models.runtimes.protocol import Floats, Ids, Runtime

BATCHES_PER_SLOT = 4
HANDFUL = 3
BATCH_TOKENS = {"cpu": 1024, "cuda": 16_384}  # padded tokens in a batch: from here on each device gains no more speed


class GoldenBatch(NamedTuple):
    """A padded batch of golden texts; `rows` says which."""

    rows: list[int]
    input_ids: Ids
    attention_mask: Ids
    tokens: int  # without padding


class Rate(NamedTuple):
    """Texts and tokens (padding not counted) in a second, all slots together."""

    texts_per_s: float
    tokens_per_s: float


def golden_batches(golden: Golden, device: str) -> list[GoldenBatch]:
    """The golden texts in full batches of similar length, as serving makes them when much waits."""
    lengths = [len(window) for window in golden.windows]
    return [_batch(golden, rows) for rows in length_sorted_batches(lengths, BATCH_TOKENS[device])]


def golden_handfuls(golden: Golden) -> list[GoldenBatch]:
    """A quarter of the golden texts, a few at a time in their order: what a stream brings that is not behind."""
    rows = range(0, len(golden.windows), 4)
    return [_batch(golden, list(rows[start : start + HANDFUL])) for start in range(0, len(rows), HANDFUL)]


def _batch(golden: Golden, rows: list[int]) -> GoldenBatch:
    windows = [golden.windows[row] for row in rows]
    return GoldenBatch(rows, *padded(windows, fill=0), sum(map(len, windows)))


def golden_logits(runtime: Runtime, batches: Sequence[GoldenBatch]) -> Floats:
    """A runtime's logits [n, columns] of all golden texts, run in as many threads as it has slots."""
    with ThreadPoolExecutor(runtime.slots) as pool:
        parts = _run(runtime, batches, pool)
    order = [row for batch in batches for row in batch.rows]
    return np.concatenate(parts)[np.argsort(order)]


def measure(runtime: Runtime, batches: Sequence[GoldenBatch], seconds: float) -> Rate:
    """Run all batches over and over in all slots, for about so long after a first pass that does not count.

    Whole passes, so that a slow runtime is not measured on the short texts alone; each with enough batches that few
    slots are idle at its end. On a CPU the cores' own seconds are counted, all slots busy: another program beside it
    would otherwise decide which runtime is fastest.
    """
    one_pass = [*batches] * -(-BATCHES_PER_SLOT * runtime.slots // len(batches))
    texts, tokens = sum(len(batch.rows) for batch in one_pass), sum(batch.tokens for batch in one_pass)
    clock: Callable[[], float] = _slot_seconds(runtime.slots) if runtime.device == "cpu" else time.perf_counter
    passes, elapsed_s = 0, 0.0
    with ThreadPoolExecutor(runtime.slots) as pool:
        _run(runtime, one_pass, pool)
        started_s = clock()
        while elapsed_s < seconds:
            _run(runtime, one_pass, pool)
            passes, elapsed_s = passes + 1, clock() - started_s
    return Rate(passes * texts / elapsed_s, passes * tokens / elapsed_s)


def _slot_seconds(slots: int) -> Callable[[], float]:
    return lambda: time.process_time() / slots


def _run(runtime: Runtime, batches: Sequence[GoldenBatch], pool: ThreadPoolExecutor) -> list[Floats]:
    return list(pool.map(lambda batch: runtime.run(batch.input_ids, batch.attention_mask), batches))


def choose(measured: Mapping[str, float]) -> str:
    """The name with the highest rate, the first of equals. Raises ValueError when nothing was measured."""
    return max(measured, key=measured.__getitem__)
