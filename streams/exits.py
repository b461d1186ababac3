"""The one way out on the unexpected, and what the exit codes mean.

0   done
2   usage or configuration, a refusal of who we are, what we may do or what a command sends among them: starting again
    will not help
70  unexpected error: the process ended at once, nothing was committed for unfinished work; the supervisor starts again
75  the broker could not be reached or did not acknowledge within the limit, or the model registry could not be reached
    at the start; the supervisor starts again
"""

from __future__ import annotations

import asyncio
import contextlib
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


class AccessRefused(RuntimeError):
    """The broker is there, but is not to be trusted, does not trust us, or does not allow what we need.

    The message names the setting, who we are to the broker, what was refused, and what to do.
    """


def end_process(reason: str, error: BaseException | None = None) -> NoReturn:
    """Log the reason and end this process without any clean-up that could commit unfinished work."""
    known = {BrokerUnavailable: BROKER_UNAVAILABLE, AccessRefused: USAGE}
    code = next((code for kind, code in known.items() if isinstance(error, kind)), UNEXPECTED)
    unexpected = error if code == UNEXPECTED else None
    log.critical("%s%s; ending with code %d", reason, f": {error}" if error else "", code, exc_info=unexpected)
    leave(code)


def leave(code: int) -> NoReturn:
    """End this process now: threads and native libraries are not waited for, as some never end."""
    for flush in (logging.shutdown, sys.stdout.flush, sys.stderr.flush):
        with contextlib.suppress(OSError, ValueError):  # a full disk or a closed pipe must not keep the process alive
            flush()
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
