"""The one way out on the unexpected, and what the exit codes mean.

0   done
2   usage or configuration: starting again will not help
70  unexpected error: the process ended at once, nothing was committed for unfinished work; the supervisor starts again
75  the broker could not be reached or did not acknowledge within the limit; the supervisor starts again
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, NoReturn

DONE, USAGE, UNEXPECTED, BROKER_UNAVAILABLE = 0, 2, 70, 75

log = logging.getLogger(__name__)


class BrokerUnavailable(RuntimeError):
    """The broker cannot be reached, or did not acknowledge an output in time."""


def end_process(reason: str, error: BaseException | None = None) -> NoReturn:
    """Log the reason and end this process without any clean-up that could commit unfinished work."""
    code = BROKER_UNAVAILABLE if isinstance(error, BrokerUnavailable) else UNEXPECTED
    unexpected = error if code == UNEXPECTED else None
    log.critical("%s: %s; ending with code %d", reason, error or "no further detail", code, exc_info=unexpected)
    leave(code)


def leave(code: int) -> NoReturn:
    """End this process now: threads and native libraries are not waited for, as some never end."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end_after(seconds: float, reason: str) -> None:
    """End this process in so many seconds, if it is still there.

    From a thread of its own: neither a busy event loop nor a library that swallows cancellation can hold it up.
    """
    timer = threading.Timer(seconds, end_process, (reason,))
    timer.daemon = True
    timer.start()


def guarded(work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
    """Run `work` as a task whose failure ends the process; only cancellation by us is let through."""

    async def run() -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            end_process(f"{what} failed", error)

    return asyncio.get_running_loop().create_task(run(), name=what)
