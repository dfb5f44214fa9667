"""One thread that does the blocking work of a store, one call after the other."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from stt_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class StorageThread:
    """Runs functions in a thread of its own, which begins with the first one.

    Args:
        what: What error messages call the store.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._executor: ThreadPoolExecutor | None = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stt-storage")

    async def run(self, function: Callable[[], T]) -> T:
        """Return what a function returns; when cancelled, it may still run.

        Raises:
            StorageError: The store is closed.
        """
        if self._executor is None:
            raise StorageError(f"{self._what} is closed")
        return await asyncio.wrap_future(self._executor.submit(function))

    async def close(self, last: Callable[[], None]) -> None:
        """Run a last function and end the thread; does nothing the second time."""
        executor, self._executor = self._executor, None
        if executor is not None:
            try:
                await asyncio.wrap_future(executor.submit(last))
            finally:
                executor.shutdown()
