"""Several coroutines at a time, none of which goes on when one has failed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable


async def run_together(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all coroutines. Where one fails, or this is cancelled, the others are cancelled and waited for.

    Raises:
        Exception: What the first that failed has raised, itself and in no group.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
