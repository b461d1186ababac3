"""What a classifier needs of a runtime: token ids in, logits out, on one device."""

import os
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Device = Literal["auto", "cpu", "cuda"]
Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Runtime(Protocol):
    """A release's graph, loaded.

    On the CPU every run takes one core, and `slots` of them side by side fill the machine: two runs on one core each
    do more than one run on two, and far more when another process wants a core. A GPU takes one run at a time.
    """

    @property
    def name(self) -> str:
        """What runs it and in which precision, such as "openvino-bf16"."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu" or "cuda"."""

    @property
    def slots(self) -> int:
        """How many runs are worth having in flight at once."""

    @property
    def packs(self) -> bool:
        """Whether texts of unlike lengths share rows: then nothing is gained by batches of similar length."""

    def padded_tokens(self, lengths: Sequence[int]) -> int:
        """What a batch of texts of so many tokens comes to, padding counted."""

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        """Logits [n, columns] of token ids [n, t]; the mask [n, t] is 1 on tokens and 0 on padding.

        May be called from `slots` threads at once; the caller owns what it gets.
        """


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Rectangles:
    """What the runtimes have in common that pad a batch to its longest text."""

    packs = False

    def padded_tokens(self, lengths: Sequence[int]) -> int:
        """As `Runtime.padded_tokens`."""
        return max(lengths, default=0) * len(lengths)
