"""Whether the broker still lets us in: asked while a client is in trouble, so that no refusal is retried for ever.

Clients retry a refused password, certificate or token without end, as it may be mended. Here it ends, with one message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from streams.exits import AccessRefused, BrokerUnavailable
from streams.grants import MissingTopics
from streams.secrets import SecurityError

log = logging.getLogger(__name__)

ASK_EVERY_S = 5.0
PATIENCE_S = 30.0  # a token that is renewed late, access rights that are on their way


async def keep_standing(
    troubled: Callable[[], bool],
    ask: Callable[[], None],
    patience_s: float = PATIENCE_S,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run until refused for so long. An outage is none of our business: what is not acknowledged in time ends that.

    Args:
        troubled: whether a client has trouble with its connections at present.
        ask: raises when the broker does not let us in; runs in a thread.
        patience_s: how long a refusal may last.
        sleep: waits so many seconds.
        clock: monotonic seconds.

    Raises:
        AccessRefused: with what `ask` said last.
    """
    since_s: float | None = None
    while True:
        await sleep(ASK_EVERY_S)
        try:
            if troubled():
                await asyncio.to_thread(ask)
            since_s = None
        except (BrokerUnavailable, MissingTopics):
            since_s = None
        except (AccessRefused, SecurityError) as error:
            if since_s is None:
                since_s = clock()
                log.error("%s; ending if that lasts for %g s", error, patience_s)
            elif clock() - since_s >= patience_s:
                raise AccessRefused(str(error)) from None
