"""Batches run as packed rows: what the runtimes of a packed graph have in common."""

from collections.abc import Callable, Sequence

import numpy as np

from models.packing import TOKENS_A_TEXT, Row, pack
from models.releases import PACKED
from models.runtimes.protocol import Floats, Ids

NO_PACKED = f"the release has no {PACKED}: its encoder cannot read rows, or it is compressed, or older"

RunRow = Callable[[dict[str, Ids]], Floats]  # one row's inputs to the logits [tokens / TOKENS_A_TEXT, columns]


class Rows:
    """Rows of these sizes; see `models.packing`."""

    packs = True

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = tuple(sizes)

    def padded_tokens(self, lengths: Sequence[int]) -> int:
        """What a batch of texts of so many tokens comes to, padding counted."""
        return sum(row.tokens for row in pack(lengths, self._sizes))

    def run_rows(self, run: RunRow, input_ids: Ids, attention_mask: Ids) -> Floats:
        """Logits [n, columns] of token ids [n, t], one row after the other."""
        lengths = attention_mask.sum(axis=1).tolist()
        parts, order = [], []
        for row in pack(lengths, self._sizes):
            parts.append(run(row_inputs(row, lengths, input_ids))[: len(row.texts)])
            order += row.texts
        logits = np.concatenate(parts)
        unpacked = np.empty_like(logits)
        unpacked[order] = logits
        return unpacked


def row_inputs(row: Row, lengths: list[int], input_ids: Ids) -> dict[str, Ids]:
    """One row of the packed graph: ids, positions and segments [1, tokens], the segments asked for [tokens / 4]."""
    ids, positions, segments = np.zeros((3, 1, row.tokens), np.int64)
    start = 0
    for segment, text in enumerate(row.texts, 1):
        end = start + lengths[text]
        ids[0, start:end] = input_ids[text, : lengths[text]]
        positions[0, start:end] = np.arange(lengths[text])
        segments[0, start:end] = segment
        start = end
    asked = np.arange(1, row.tokens // TOKENS_A_TEXT + 1)
    return {"input_ids": ids, "position_ids": positions, "segment_ids": segments, "segments": asked}
