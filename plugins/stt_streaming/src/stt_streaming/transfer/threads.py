"""Blocking calls in threads, so that a slow disk does not hold up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def in_thread(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
) -> Result:
    """Return what the function returns in a thread; when cancelled, wait for its end first.

    A thread cannot be stopped: without the wait, its file would be closed or removed while it still writes.
    """
    call = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **keywords))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        while not call.done():
            # A second cancellation is no reason to leave earlier.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((call,))
        raise
