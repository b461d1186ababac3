"""A machine of the storm: the real supervisor over one worker, as `streamgauge worker` runs it.

    python -m tests.storm.host MODULE

The settings come from `$STREAMGAUGE_CONFIG` and the environment. MODULE is the worker's entry, run as
`python -m MODULE`: `tests.storm.worker`, the naive worker, or a worker with a rule taken out.
"""

from __future__ import annotations

import os
import sys

from streams.supervisor import supervise
from streams.worker import set_up_logging

GRACE_S = 40.0  # longer than the worker's own deadline
LONGEST_PAUSE_S = 3.0  # so that a worker hit again and again is soon back to be hit again

if __name__ == "__main__":
    set_up_logging()
    sys.exit(supervise([os.environ], GRACE_S, module=sys.argv[1], longest_pause_s=LONGEST_PAUSE_S))
