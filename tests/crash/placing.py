"""Faults put before or after a function of the product, from outside."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from tests.crash.faults import Fault

Place = Callable[[Fault], None]


def before(owner: Any, name: str) -> Place:
    """Strike before a method runs."""
    return _wrapped(owner, name, strikes_first=True)


def after(owner: Any, name: str) -> Place:
    """Strike after a method has run."""
    return _wrapped(owner, name, strikes_first=False)


def _wrapped(owner: Any, name: str, strikes_first: bool) -> Place:
    def place(fault: Fault) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            if strikes_first:
                fault.strike()
            result = await original(*args, **kwargs)
            if not strikes_first:
                fault.strike()
            return result

        @functools.wraps(original)
        def plain(*args: Any, **kwargs: Any) -> Any:
            if strikes_first:
                fault.strike()
            result = original(*args, **kwargs)
            if not strikes_first:
                fault.strike()
            return result

        setattr(owner, name, coroutine if inspect.iscoroutinefunction(original) else plain)

    return place
