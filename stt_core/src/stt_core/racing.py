"""Several attempts at one thing, begun a little apart: the first that succeeds wins (RFC 8305)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

T = TypeVar("T")


async def race(
    attempts: Iterable[Callable[[], Coroutine[Any, Any, T]]], interval: float, discard: Callable[[T], None]
) -> T:
    """Return the first result; the other attempts are cancelled, and have ended on return.

    Args:
        attempts: They begin in this order, the next one as soon as one has failed.
        interval: Seconds after which the next one begins all the same.
        discard: Called with each result that came too late, also when the race itself is cancelled.

    Raises:
        ExceptionGroup: All attempts failed; it holds their errors, in the order of the attempts.
    """
    tasks: list[asyncio.Task[T]] = []
    winner: asyncio.Task[T] | None = None
    try:
        winner = await _first(list(attempts), interval, tasks)
        losers = [task for task in tasks if task is not winner]
        for task in losers:
            task.cancel()
        if losers:
            await asyncio.wait(losers)
    except BaseException:
        winner = None
        raise
    finally:
        for task in tasks:
            if task is not winner:
                task.cancel()
                task.add_done_callback(lambda task: discard(task.result()) if _error(task) is None else None)
    if winner is not None:
        return winner.result()
    raise BaseExceptionGroup("all attempts failed", [error for task in tasks if (error := _error(task)) is not None])


async def _first(
    attempts: list[Callable[[], Coroutine[Any, Any, T]]], interval: float, tasks: list[asyncio.Task[T]]
) -> asyncio.Task[T] | None:
    running: set[asyncio.Task[T]] = set()
    while attempts or running:
        if attempts:
            tasks.append(asyncio.create_task(attempts.pop(0)()))
            running.add(tasks[-1])
        done, running = await asyncio.wait(
            running, timeout=interval if attempts else None, return_when=asyncio.FIRST_COMPLETED
        )
        for task in tasks:
            if task in done and _error(task) is None:
                return task
    return None


def _error(task: asyncio.Task[T]) -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()
