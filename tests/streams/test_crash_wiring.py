"""Every point and mutation still finds what it patches: the runs on Kafka take minutes, a renamed method shows here."""

from __future__ import annotations

import subprocess
import sys

from tests.crash.mutations import MUTATIONS
from tests.crash.points import ALL_POINTS

EACH_IN_A_PROCESS = """
import os, sys
from tests.crash.faults import Fault
from tests.crash.mutations import MUTATIONS
from tests.crash.points import ALL_POINTS

work = {name: (lambda one=one, name=name: one.place(Fault(name, 1, one.kinds[0]))) for name, one in ALL_POINTS.items()}
work |= {name: one.apply for name, one in MUTATIONS.items()}
for name, patch in work.items():
    child = os.fork()
    if not child:
        try:
            patch()
        except BaseException as error:
            os.write(1, f"{name}: {error!r}\\n".encode())
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
print(len(work), "patched")
"""


def test_every_point_and_mutation_finds_what_it_patches() -> None:
    done = subprocess.run([sys.executable, "-c", EACH_IN_A_PROCESS], capture_output=True, text=True, timeout=120)
    assert done.stdout == f"{len(ALL_POINTS) + len(MUTATIONS)} patched\n", done.stdout + done.stderr
