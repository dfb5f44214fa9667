"""A limit for the bytes that are sent in a second, over all sessions of a sender."""

from __future__ import annotations

import asyncio
from typing import Final

BURSTS_PER_SECOND: Final = 10
"""How often, about, bytes are let through."""


class RateLimit:
    """Lets bytes through at a rate.

    Args:
        bytes_per_second: The rate, which must be positive.
    """

    def __init__(self, bytes_per_second: float) -> None:
        self.burst_size = max(1, int(bytes_per_second / BURSTS_PER_SECOND))
        """Bytes that should be taken at a time."""

        self._rate = bytes_per_second
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        """Wait until so many bytes may go; those who come later wait for them as well."""
        now = asyncio.get_running_loop().time()
        begins_at = max(now, self._free_at)
        self._free_at = begins_at + size / self._rate
        if begins_at > now:
            await asyncio.sleep(begins_at - now)
