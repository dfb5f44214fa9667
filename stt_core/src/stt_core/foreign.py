"""What somebody else's code may do when it is awaited."""

from __future__ import annotations

import asyncio


def ends_the_task(error: BaseException) -> bool:
    """Return whether an exception of somebody else's code has to end the task that awaited it.

    A cancellation does only if it was meant for this task: plugins may let one escape that nobody asked for, such as
    that of a task of their own.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return not isinstance(error, Exception)
