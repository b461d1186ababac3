"""Where a release runs: token ids in, logits out, by the runtime that is fastest on this machine.

    protocol                 what a runtime is
    onnx, openvino, torch    the runtimes
    candidates               all of them, with how exact each has to be
    parity, measuring        the gate they must pass, and the rate they are chosen by
    remembered               what earlier starts found
    choosing                 all of that in order
    memory                   whether a run failed for want of it

`open_runtime` and `out_of_memory` are all that a caller needs.
"""

from models.runtimes.candidates import REFERENCE, RUNTIMES, reference
from models.runtimes.choosing import available, open_runtime, precision_of
from models.runtimes.memory import out_of_memory
from models.runtimes.protocol import Device, Floats, Ids, Runtime

__all__ = [
    "REFERENCE",
    "RUNTIMES",
    "Device",
    "Floats",
    "Ids",
    "Runtime",
    "available",
    "open_runtime",
    "out_of_memory",
    "precision_of",
    "reference",
]
