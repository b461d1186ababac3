"""What a classifier needs of a runtime: token ids in, logits out, on one device."""

import os
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

    def run(self, input_ids: Ids, attention_mask: Ids) -> Floats:
        """Logits [n, columns] of token ids [n, t]; the mask [n, t] is 1 on tokens and 0 on padding.

        May be called from `slots` threads at once; the caller owns what it gets.
        """


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
